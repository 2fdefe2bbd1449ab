# Bring n8n to this release's workflows, before it starts: it reads them when it starts. What an
# earlier start published must be unpublished first. Credentials are blank here; the server fills
# them from CREDENTIALS_OVERWRITE_DATA_FILE.
set -eu
given=/provision
published=$(n8n list:workflow --active=true --onlyId)
n8n import:credentials --input="$given/credentials.json"
for file in "$given"/workflows/*.json; do
  id=$(basename "$file" .json)
  case "$published" in *"$id"*) n8n unpublish:workflow --id="$id" ;; esac
done
n8n import:workflow --separate --input="$given/workflows"
for file in "$given"/workflows/*.json; do
  n8n publish:workflow --id="$(basename "$file" .json)"
done

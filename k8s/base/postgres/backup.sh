# Back up both databases and the roles into a new folder, which appears when it is complete, and
# keep the newest $KEEP. As superuser, because row level security hides rows even from the owner.
set -eu
cd "${FOLDER:-/backups}"
made=$(date -u +%Y%m%dT%H%M%SZ)
rm -rf ./*.partial
mkdir "$made.partial"
# Without passwords: they are in the Secret `postgres`, which makes the users of an empty server.
pg_dumpall --roles-only --no-role-passwords --file "$made.partial/roles.sql"
for database in millrace n8n; do
  pg_dump --format custom --file "$made.partial/$database.dump" "$database"
  pg_restore --list "$made.partial/$database.dump" > /dev/null
done
sync
mv "$made.partial" "$made"
# Names sort as times do.
ls -d 2*Z | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do rm -rf "./$old"; done
du -sh ./2*Z

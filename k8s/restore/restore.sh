# Restore both databases from the folder $BACKUP of the volume, or from the newest one.
set -eu
cd "${FOLDER:-/backups}"
[ "$BACKUP" != newest ] || BACKUP=$(ls -d 2*Z | sort | tail -n 1)
for database in millrace n8n; do
  pg_restore --list "$BACKUP/$database.dump" > /dev/null
done
# Roles that are there already are kept as they are, with their passwords.
psql --no-psqlrc --quiet --dbname postgres --file "$BACKUP/roles.sql" 2>&1 | grep -v 'already exists' || true
for database in millrace n8n; do
  echo "restoring $database from $BACKUP"
  psql --no-psqlrc --set ON_ERROR_STOP=1 --dbname postgres \
    --command "DROP DATABASE IF EXISTS $database WITH (FORCE)"
  pg_restore --create --exit-on-error --dbname postgres "$BACKUP/$database.dump"
done
echo "restored $BACKUP"

# Run once by the image, when the volume is empty. The schema is the migrations Job's.
# `millrace` owns the schema and is no superuser, so the roles and pgvector are made here.
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv millrace_password MILLRACE_PASSWORD
\getenv n8n_password N8N_PASSWORD
CREATE ROLE millrace_app NOLOGIN NOINHERIT;
CREATE ROLE millrace_n8n NOLOGIN;
CREATE ROLE millrace LOGIN PASSWORD :'millrace_password';
CREATE ROLE n8n LOGIN PASSWORD :'n8n_password' IN ROLE millrace_n8n;
GRANT millrace_app TO millrace WITH INHERIT FALSE, SET TRUE;

CREATE DATABASE millrace OWNER millrace;
CREATE DATABASE n8n OWNER n8n;
REVOKE ALL ON DATABASE millrace FROM PUBLIC;
REVOKE ALL ON DATABASE n8n FROM PUBLIC;
GRANT CONNECT ON DATABASE millrace TO n8n;
-- A workflow that hangs within a transaction would keep what it has locked.
ALTER ROLE n8n IN DATABASE millrace SET idle_in_transaction_session_timeout = '10s';

\connect millrace
CREATE SCHEMA extensions;
CREATE EXTENSION vector WITH SCHEMA extensions;
GRANT USAGE ON SCHEMA extensions TO millrace, millrace_app;
SQL

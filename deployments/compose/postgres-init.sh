#!/bin/sh
# Run by PostgreSQL's image in an empty cluster: one role and one database each for Ground Control and for Prefect.
set -eu
export SECRETS="${SECRETS:-/run/secrets}"
for name in ground_control prefect; do
    export name
    psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
\set name `echo "$name"`
\set password `cat "$SECRETS/$name-database-password"`
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name" ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
SQL
done

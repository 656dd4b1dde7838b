#!/bin/sh
# Make ./secrets for centre.yaml, each secret a file; what is there stays as it is, so that it may be repeated.
# SOURCE_PASSWORD in the environment, or typed in: of the central registry's user.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
# Containers get the files themselves and run as other users; on this machine nobody else gets into the folder.
chmod 700 secrets
umask 022

random() { head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
make() {  # NAME VALUE
    [ -e "secrets/$1" ] && return
    printf '%s\n' "$2" > "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
    echo "made secrets/$1"
}
read_secret() { cat "secrets/$1"; }

make postgres-password "$(random)"
make ground_control-database-password "$(random)"
make prefect-database-password "$(random)"
make prefect-password "$(random)"
make metrics-token "$(random)"
make admin-password "Aa1-$(random)"
make database-url "postgresql://ground_control:$(read_secret ground_control-database-password)@postgres:5432/ground_control"
make prefect-server.env "PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:$(read_secret prefect-database-password)@postgres:5432/prefect
PREFECT_SERVER_API_AUTH_STRING=centre:$(read_secret prefect-password)"
make prefect-client.env "PREFECT_API_AUTH_STRING=centre:$(read_secret prefect-password)"
if [ ! -e secrets/source-password ]; then
    if [ -z "${SOURCE_PASSWORD+x}" ]; then
        printf 'password of the central registry: '
        trap 'stty echo' EXIT INT TERM
        stty -echo
        read -r SOURCE_PASSWORD
        stty echo
        trap - EXIT INT TERM
        echo
    fi
    make source-password "$SOURCE_PASSWORD"
fi
echo "the first admin's password is in secrets/admin-password"

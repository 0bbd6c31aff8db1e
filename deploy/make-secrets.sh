#!/bin/sh
# Makes the secrets that docker-compose.yml mounts, each of 256 random bits, in deploy/secrets/ (or the folder given).
# What exists is kept, so that running it again changes nothing; to change a secret, see docs/operations.md.
#
# The folder is open to its owner alone. The files in it are readable to all, because Compose mounts a file with the
# owner and mode that it has, and the processes in the containers run as users of their own.
set -eu

folder=${1:-$(dirname "$0")/secrets}
umask 077
mkdir -p "$folder"
chmod 700 "$folder"

random() {
    head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# write NAME TEXT: makes a file as a whole or not at all.
write() {
    printf '%s\n' "$2" > "$folder/.$1"
    chmod 444 "$folder/.$1"
    mv -f "$folder/.$1" "$folder/$1"
}

# make NAME: a random secret, unless there is one.
make() {
    [ -s "$folder/$1" ] || write "$1" "$(random)"
}

make postgres_password
make redis_password
make client_secret_key
[ -s "$folder/master_key" ] || write master_key "$(head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=\n')"
make grafana_password

# Written anew each time from the passwords above: addresses and a line of configuration that hold them.
write database_url "postgresql+psycopg://sluice:$(cat "$folder/postgres_password")@postgres:5432/sluice"
write redis_url "redis://:$(cat "$folder/redis_password")@redis:6379/0"
write redis_auth "requirepass $(cat "$folder/redis_password")"

echo "The secrets are in $folder; nobody else on this machine can open that folder."

# Starts PgBouncer in its container. The password of the role pipedai comes from the variable POSTGRES_PASSWORD, and is
# written to a file in memory, since PgBouncer reads passwords from a file alone.
set -eu
: "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD to the password of the role pipedai}"
umask 077
printf '"pipedai" "%s"\n' "$POSTGRES_PASSWORD" >/tmp/userlist.txt
exec pgbouncer -q /etc/pipedai/pgbouncer.ini

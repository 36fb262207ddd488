# Starts PgBouncer in its container. The password of the role pipedai comes from the variable POSTGRES_PASSWORD, and is
# written to a file in memory, since PgBouncer reads passwords from a file alone. In that file a quote is written twice.
set -eu
: "${POSTGRES_PASSWORD:?set POSTGRES_PASSWORD to the password of the role pipedai}"
umask 077
printf '"pipedai" "%s"\n' "$(printf %s "$POSTGRES_PASSWORD" | sed 's/"/""/g')" >/tmp/userlist.txt
exec pgbouncer /etc/pipedai/pgbouncer.ini

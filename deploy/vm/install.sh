#!/usr/bin/env bash
# Installs PipedAI on a machine with Debian 12 or newer, and installs new releases on it. Run it as root, in the
# directory of a release below /srv/pipedai/releases: deploy/vm/install.sh STEP…; docs/deploy.md says which steps, when.
# Every step can be run again: it makes what is missing, and keeps existing secrets and certificates.
set -euo pipefail
# The service needs Debian's own Python, since its user can't read a Python in somebody's home directory.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin

release=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
base=/srv/pipedai
config=/etc/pipedai
settings=$config/pipedai.env
tls=$config/tls

die() { printf '%s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*"; }
as_postgres() { (cd / && runuser -u postgres -- "$@"); }
random() { openssl rand -hex 32; }

# set_setting NAME VALUE writes a setting into the settings file. No secret becomes an argument of a program.
set_setting() {
  (umask 077 && { grep -v "^$1=" "$settings" || true; printf '%s="%s"\n' "$1" "$2"; } >"$settings.new")
  chown root:pipedai "$settings.new"
  chmod 0640 "$settings.new"
  mv "$settings.new" "$settings"
}

# --- The machine, once -------------------------------------------------------------------------------------

# Installs PostgreSQL, nginx and what a Python service needs.
step_packages() {
  local wanted=(ca-certificates nginx openssl postgresql python3-venv)
  if ! dpkg-query --show "${wanted[@]}" >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${wanted[@]}"
  fi
}

# Makes the user that the processes run as.
step_user() {
  id pipedai >/dev/null 2>&1 ||
    useradd --system --user-group --home-dir /var/lib/pipedai --shell /usr/sbin/nologin pipedai
  install -d -o pipedai -g pipedai -m 0700 /var/lib/pipedai
}

# Makes a database and a role with the user's name. PostgreSQL knows the role by its system user, without a password.
step_database() {
  [ "$(as_postgres psql -tAc "SELECT 1 FROM pg_roles WHERE rolname = 'pipedai'")" = 1 ] ||
    as_postgres createuser pipedai
  [ "$(as_postgres psql -tAc "SELECT 1 FROM pg_database WHERE datname = 'pipedai'")" = 1 ] ||
    as_postgres createdb --owner=pipedai --encoding=UTF8 --template=template0 pipedai
}

# Writes the settings, with new keys that exist nowhere else. DOMAIN is the host name of the service.
step_settings() {
  local domain=${DOMAIN:?set DOMAIN to the name that clients reach the service by}
  install -d -m 0755 "$config"
  if [ -e "$settings" ]; then
    say "$settings is there already and stays as it is."
    return
  fi
  install -o root -g pipedai -m 0640 /dev/null "$settings"
  set_setting PIPEDAI_ENV production
  set_setting PUBLIC_URL "https://$domain"
  set_setting ALLOWED_HOSTS "$domain"
  set_setting TRUSTED_PROXIES 127.0.0.1
  set_setting DATABASE_URL "postgres://pipedai@/pipedai?host=/var/run/postgresql"
  set_setting SECRET_KEY "$(random)"
  set_setting MASTER_KEYS "k1:$(openssl rand -base64 32)"
}

# Makes a self-signed certificate, which serves until there is a real one.
step_certificate() {
  local domain=${DOMAIN:?set DOMAIN to the name that clients reach the service by}
  install -d -m 0755 "$tls"
  [ -e "$tls/privkey.pem" ] || (umask 077 && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
    -nodes -days 365 -subj "/CN=$domain" -addext "subjectAltName=DNS:$domain" \
    -keyout "$tls/privkey.pem" -out "$tls/fullchain.pem" 2>/dev/null)
  chmod 0644 "$tls/fullchain.pem"
}

# Installs nginx's configuration of the service.
step_nginx() {
  local domain=${DOMAIN:?set DOMAIN to the name that clients reach the service by}
  sed "s/api\.example\.com/$domain/g" "$release/deploy/vm/nginx.conf" >/etc/nginx/sites-available/pipedai
  ln -sf ../sites-available/pipedai /etc/nginx/sites-enabled/pipedai
  nginx -t -q
}

# Installs the command `pipedai …`, which runs manage.py with these settings as that user.
step_command() {
  install -m 0755 "$release/deploy/vm/pipedai" /usr/local/sbin/pipedai
}

# Installs systemd's units.
step_units() {
  install -m 0644 "$release"/deploy/vm/pipedai-*.{socket,service} /etc/systemd/system/
}

step_start() {
  local units=(postgresql nginx pipedai-web.socket pipedai-web.service pipedai-scheduler.service)
  systemctl daemon-reload
  systemctl enable -q "${units[@]}"
  systemctl start "${units[@]}"
  systemctl reload nginx
}

# --- Each release ------------------------------------------------------------------------------------------

# Installs the locked packages, compiles the code, and collects the static files.
step_code() {
  cd "$release"
  bin/setup
  .venv/bin/python -m compileall -q accounts agent audit console notices pipedai triggers workers workspaces
  PIPEDAI_ENV=development .venv/bin/python manage.py collectstatic --no-input -v 0
  chmod -R go=u-w "$release"
}

# Migrates the schema, while the previous release keeps serving.
step_migrate() {
  PIPEDAI_RELEASE=$release "$release/deploy/vm/pipedai" release
}

# Makes this release the one that starts from now on.
step_switch() {
  ln -sfn "$release" "$base/next"
  mv -T "$base/next" "$base/current"
}

# Restarts the processes. Meanwhile new connections wait in the socket, and none is refused.
step_restart() {
  systemctl restart pipedai-web.service pipedai-scheduler.service
}

# --- PgBouncer ---------------------------------------------------------------------------------------------

# Installs PgBouncer between the processes and PostgreSQL. The connections that LISTEN bypass it.
step_pgbouncer() {
  local password
  dpkg-query --show pgbouncer >/dev/null 2>&1 ||
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends pgbouncer
  password=$(random)
  as_postgres psql -q <<<"SET password_encryption = 'scram-sha-256'; ALTER ROLE pipedai PASSWORD '$password'"
  install -o postgres -g postgres -m 0640 /dev/null /etc/pgbouncer/userlist.txt
  printf '"pipedai" "%s"\n' "$password" >/etc/pgbouncer/userlist.txt
  install -o postgres -g postgres -m 0640 "$release/deploy/vm/pgbouncer.ini" /etc/pgbouncer/pgbouncer.ini
  set_setting DATABASE_URL "postgres://pipedai:$password@/pipedai?host=/var/run/postgresql&port=6432"
  set_setting DATABASE_LISTEN_URL "postgres://pipedai@/pipedai?host=/var/run/postgresql"
  systemctl enable -q pgbouncer
  systemctl restart pgbouncer
}

[ "$(id -u)" = 0 ] || die "This must be run as root."
[ "$(dirname "$release")" = "$base/releases" ] || die "$release is not below $base/releases: put the release there."
[ $# -gt 0 ] || die "usage: deploy/vm/install.sh STEP…"
for step in "$@"; do
  declare -F "step_$step" >/dev/null || die "There is no step $step: docs/deploy.md lists them."
done
for step in "$@"; do
  "step_$step"
done

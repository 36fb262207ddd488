# The image of PipedAI's processes. docs/deploy.md says how to run it; compose.yaml is an example with all parts.
ARG PYTHON=3.13
ARG DEBIAN=trixie

# PgBouncer, for compose.yaml: the package of Debian, with the settings of deploy/image.
FROM debian:${DEBIAN}-slim AS pgbouncer
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends pgbouncer \
 && rm -rf /var/lib/apt/lists/*
COPY deploy/image/pgbouncer.ini deploy/image/pgbouncer.sh /etc/pipedai/
USER 10001:10001
EXPOSE 6432
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/6432"]
CMD ["sh", "/etc/pipedai/pgbouncer.sh"]

# The locked packages, the compiled code and the static files. Nothing else of this stage comes into the image.
FROM python:${PYTHON}-slim-${DEBIAN} AS build
WORKDIR /app
# The packages change less often than the code, so they have a layer of their own.
COPY requirements.txt ./
COPY bin/setup bin/
RUN bin/setup
COPY . .
RUN .venv/bin/python -m compileall -q accounts agent audit bin console notices pipedai triggers workers workspaces \
 && PIPEDAI_ENV=development .venv/bin/python manage.py collectstatic --no-input -v 0

FROM python:${PYTHON}-slim-${DEBIAN} AS app
# The user has a number and no home. /data is only for compose.yaml's demo; the service itself writes to /tmp alone.
RUN groupadd --gid 10001 pipedai \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pipedai \
 && install -d -o 10001 -g 10001 -m 0700 /data
WORKDIR /app
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH PIPEDAI_ENV=production PIPEDAI_DATA_DIR=/data PORT=8000 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8000
# At SIGTERM the web process lets requests end for 25 s, so give it 30 s before SIGKILL.
STOPSIGNAL SIGTERM
# The check asks whether the process answers, and not for the database, since a restart would not bring that back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-I", "/app/deploy/image/is_alive.py"]
CMD ["python", "-m", "pipedai.server"]

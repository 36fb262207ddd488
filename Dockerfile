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

# The Claude CLI from npm, in the version that bin/claude.py tests. It is not free software: see its terms before you pass
# the image on.
FROM node:24-slim AS claude
ARG CLAUDE=2.1.332
RUN npm install --ignore-scripts --no-audit --no-fund --prefix /claude "@anthropic-ai/claude-code-linux-$(node -p process.arch)@${CLAUDE}" \
 && install -m 0755 /claude/node_modules/@anthropic-ai/claude-code-linux-*/claude /usr/local/bin/claude

# A worker, for a machine of its own. Its registration and its runs' directories are in the volume at its home.
FROM python:${PYTHON}-slim-${DEBIAN} AS worker
RUN groupadd --gid 10001 pipedai \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/pipedai-worker --shell /usr/sbin/nologin pipedai \
 && install -d -o 10001 -g 10001 -m 0700 /var/lib/pipedai-worker
COPY --from=claude /usr/local/bin/claude /usr/local/bin/claude
COPY --from=build /app/.venv /app/.venv
COPY --from=build /app/agent /app/agent
COPY deploy/image/worker.sh /app/
ENV PATH=/app/.venv/bin:$PATH PYTHONPATH=/app/agent HOME=/var/lib/pipedai-worker TMPDIR=/var/lib/pipedai-worker/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /var/lib/pipedai-worker
USER 10001:10001
# The runs that it holds get 23 s to finish, so give it 35 s before SIGKILL.
STOPSIGNAL SIGTERM
CMD ["sh", "/app/worker.sh"]

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

"""Django settings, read from environment variables alone (12-factor). `.env.example` lists all variables."""

from typing import Any

from pipedai import env, logs
from pipedai.version import VERSION

BASE_DIR = env.BASE_DIR
# With `production`, which the Procfile sets, unsafe settings are refused.
PIPEDAI_ENV = env.choice("PIPEDAI_ENV", ("development", "production"), "development")
PRODUCTION = PIPEDAI_ENV == "production"
DATA_DIR = env.data_dir()
PORT = env.whole("PORT", 8000, at_least=1, at_most=65535)

# --- Keys --------------------------------------------------------------------------------------------------

# DEVELOPMENT_SECRET_KEY and DEVELOPMENT_MASTER_KEYS are public, because they are in the source code. They are defaults,
# so that a newcomer need not set keys. Production refuses them.
DEVELOPMENT_SECRET_KEY = "development-only-secret-key-refused-in-production-0123456789"  # noqa: S105
DEVELOPMENT_MASTER_KEYS = ("dev:ZGV2ZWxvcG1lbnQtb25seS1tYXN0ZXIta2V5LTMyYnQ=",)
SECRET_KEY = env.text("SECRET_KEY", DEVELOPMENT_SECRET_KEY)
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
# A list of `<id>:<base64 of 32 bytes>`, newest first (docs/security.md, Keys).
MASTER_KEYS = env.words("MASTER_KEYS", DEVELOPMENT_MASTER_KEYS)

# --- Where the service is, and who may call it -------------------------------------------------------------
PUBLIC_URL = env.text("PUBLIC_URL", f"http://localhost:{PORT}").rstrip("/")
ALLOWED_HOSTS = env.words(
    "ALLOWED_HOSTS", () if PRODUCTION else ("localhost", "127.0.0.1", "[::1]", ".localhost")
)
ALLOWED_ORIGINS = env.words("ALLOWED_ORIGINS")
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES")
# Whether requests are throttled. Only the settings of tests and benchmarks (testing/settings.py) turn this off.
THROTTLES_ENABLED = True
# Who may register: anybody, only people with an invitation, or nobody.
REGISTRATION = env.choice("REGISTRATION", ("open", "invited", "closed"), "open")
# The issuer (an OpenID provider) at which people sign in, and our id and secret there. OIDC_ONLY forbids passwords.
OIDC_ISSUER = env.text("OIDC_ISSUER", "")
OIDC_CLIENT_ID = env.text("OIDC_CLIENT_ID", "")
OIDC_CLIENT_SECRET = env.text("OIDC_CLIENT_SECRET", "")
OIDC_ONLY = env.flag("OIDC_ONLY", default=False)
# Browsers take a cookie with this prefix only from this very host, so that no other subdomain can plant it. Such a
# cookie must be Secure and have the path / (RFC 6265bis).
COOKIE_PREFIX = "__Host-" if PRODUCTION else ""
COOKIE_SAMESITE = env.choice("COOKIE_SAMESITE", ("Lax", "Strict", "None"), "Lax")

CORS_ALLOWED_ORIGINS = ALLOWED_ORIGINS
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/api/v1/.*$"
CORS_ALLOW_HEADERS = ("accept", "authorization", "content-type", "idempotency-key", "x-request-id")
CORS_EXPOSE_HEADERS = (
    "idempotent-replayed",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-request-id",
)
CORS_ALLOW_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")

# --- What the product does ---------------------------------------------------------------------------------
RUN_LEASE_SECONDS = env.whole("RUN_LEASE_SECONDS", 180, at_least=1, at_most=86_400)
SCHEDULE_CATCHUP_SECONDS = env.whole("SCHEDULE_CATCHUP_SECONDS", 3600, at_most=31 * 86_400)
WEBHOOK_ALLOWED_NETWORKS = env.words("WEBHOOK_ALLOWED_NETWORKS")
# Each scheduler requests this URL once a minute while its jobs go well.
HEARTBEAT_URL = env.text("HEARTBEAT_URL", "")
# The mail server by which mails are sent. Without one, mails are written into files in development, and are
# not sent in production.
EMAIL_URL = env.email_url("EMAIL_URL")
# The sender of all mails: an address, or `Name <address>`.
EMAIL_FROM = env.text("EMAIL_FROM", "PipedAI <pipedai@localhost>")
# The base URL of a dashboard to which the links in mails and Slack lead. The dashboard has the pages for tokens below
# /account, and the console's pages (`pipedai/links.py`). If this is empty, the links lead to the service's own pages.
DASHBOARD_URL = env.text("DASHBOARD_URL", "").rstrip("/")
# The version to which GET /releases/latest tells the hosts to upgrade the program that supervises their workers.
LATEST_ORCHESTRATOR_VERSION = env.semver("LATEST_ORCHESTRATOR_VERSION", "0.7.1")
# How many days old rows are kept. 0 keeps them for ever. docs/operations.md explains each setting.
RUN_RETENTION_DAYS = env.whole("RUN_RETENTION_DAYS", 0, at_most=36_500)
DELIVERY_RETENTION_DAYS = env.whole("DELIVERY_RETENTION_DAYS", 0, at_most=36_500)
# For events of runs. A run accepts events until a day after its end, so they are kept for two days at least.
RUN_EVENTS_DAYS = env.whole("RUN_EVENTS_DAYS", 14, at_least=2, at_most=36_500)
# For events of sources with their bodies and the decisions about them.
INBOUND_EVENTS_DAYS = env.whole("INBOUND_EVENTS_DAYS", 14, at_least=1, at_most=36_500)

# --- Django's own settings ---------------------------------------------------------------------------------
INSTALLED_APPS = [
    "pipedai",  # The first app, because it refuses unfit settings before other apps start, such as the admin.
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "corsheaders",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts",
    "workspaces",
    "triggers",
    "workers",
    "audit",
    # This app comes after `audit`, so that the audit log records the end of a run before its consequences.
    "notices",
    "console",
    "django_htmx",  # For htmx as a static file; its middleware is not used.
]
# Django's middleware is skipped for two kinds of calls. Calls below /api/v1/ that are not OPTIONS and have no Origin
# header skip it, because pipedai.wsgi makes the checks that they need. GET /api/v1/health/live is answered by the event
# loop, without Django. See docs/decisions/fast-paths.md.
MIDDLEWARE = [
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.common.CommonMiddleware",  # Refuses a Host that is not in ALLOWED_HOSTS.
    "pipedai.static_files.serve_static_files",
    "pipedai.api.exceptions.UnavailablePages",
    "pipedai.admin.site.AdminSessions",
    "pipedai.admin.site.AdminCsrf",
    "pipedai.admin.site.AdminUsers",
    "pipedai.admin.site.AdminMessages",
]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "pipedai.urls"
WSGI_APPLICATION = "pipedai.wsgi.application"
APPEND_SLASH = False
USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
# Django's `check --deploy` wants a setting for each protection in this list. Our own code provides these protections,
# also for answers that Django does not make.
SILENCED_SYSTEM_CHECKS = [
    "security.W001",  # pipedai.server adds `nosniff` and HSTS to every answer.
    "security.W002",  # pipedai.server adds a policy with `frame-ancestors 'none'` to every answer.
    "security.W003",  # pipedai.api.authentication refuses foreign origins.
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "accounts.User"
PASSWORD_HASHERS = ["accounts.passwords.PasswordHasher"]
AUTH_PASSWORD_VALIDATORS: list[dict[str, Any]] = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
# --- Admin -------------------------------------------------------------------------------------------------

# Browsers send the admin's cookies only to the admin's own path. A session lasts eight hours, however much it is used:
# see accounts.sessions.
SESSION_ENGINE = "accounts.sessions"
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}staff_session"
SESSION_COOKIE_AGE = 8 * 3600
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}staff_csrf"
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = "/" if PRODUCTION else "/admin"
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Strict"
SESSION_COOKIE_HTTPONLY = CSRF_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "pipedai.static_files.Storage"},
}
# Production serves the files that `manage.py collectstatic` collected. Development reads static files from the
# packages, because collected files would soon be out of date.
STATIC_COLLECTED = PRODUCTION and (STATIC_ROOT / "staticfiles.json").is_file()
WHITENOISE_USE_FINDERS = not STATIC_COLLECTED
WHITENOISE_AUTOREFRESH = False
WHITENOISE_ALLOW_ALL_ORIGINS = False
# The largest body of a request, as API.md says. The ASGI wrapper refuses a larger body before Django, which has the
# same limit, sees it.
MAX_BODY_BYTES = 1024 * 1024
# The largest body of a call that plans or applies files, which may be a whole repository of prompts.
MAX_FILES_BYTES = 8 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_FILES_BYTES

# --- The database ------------------------------------------------------------------------------------------
DATABASE_URL = env.database_url("DATABASE_URL")
# A URL of the database server itself, for LISTEN, which needs a session of its own. It must be set if DATABASE_URL
# names a PgBouncer in transaction mode.
DATABASE_LISTEN_URL = env.database_url("DATABASE_LISTEN_URL")
_database: dict[str, Any] = (
    {**env.database_config(DATABASE_URL), "ENGINE": "pipedai.database"}
    if DATABASE_URL
    else {"ENGINE": "pipedai.embedded", "NAME": "pipedai", "DATA_DIR": DATA_DIR}
)
# Prepared statements save a third of PostgreSQL's CPU, but belong to a session. A PgBouncer before 1.21 in transaction
# mode may run each transaction in another session, so this setting can turn prepared statements off.
DATABASE_PREPARE = env.flag("DATABASE_PREPARE", default=not DATABASE_LISTEN_URL)
_STATEMENT_OPTIONS: dict[str, Any] = {
    "server_side_binding": DATABASE_PREPARE,
    "prepare_threshold": 5 if DATABASE_PREPARE else None,
}
_KEPT_CONNECTIONS: dict[str, Any] = {
    # Each thread of the bounded pool keeps its connection for this many seconds, because a new connection for each
    # request would cost 2.9 ms.
    "CONN_MAX_AGE": 600,
    "CONN_HEALTH_CHECKS": True,
    # PgBouncer in transaction mode does not support server-side cursors.
    "DISABLE_SERVER_SIDE_CURSORS": True,
}
_database["OPTIONS"] = {**_database.get("OPTIONS", {}), **_STATEMENT_OPTIONS}
DATABASES: dict[str, dict[str, Any]] = {"default": {**_database, **_KEPT_CONNECTIONS}}
# A standby of the database, from which lists and statistics are read (docs/scaling.md).
REPLICA_DATABASE_URL = env.database_url("REPLICA_DATABASE_URL")
if REPLICA_DATABASE_URL:
    _replica = env.database_config(REPLICA_DATABASE_URL, patience=env.REPLICA_PATIENCE)
    DATABASES["replica"] = {
        **_replica,
        "ENGINE": "pipedai.database",
        "OPTIONS": {**_replica["OPTIONS"], **_STATEMENT_OPTIONS},
        **_KEPT_CONNECTIONS,
    }
    DATABASE_ROUTERS = ["pipedai.replica.ReplicaRouter"]

# --- The web process ---------------------------------------------------------------------------------------
WEB_THREADS = env.whole("WEB_THREADS", 8, at_least=1, at_most=256)
# How many processes serve requests; gunicorn reads it too.
WEB_CONCURRENCY = env.whole("WEB_CONCURRENCY", 2 if PRODUCTION else 1, at_least=1, at_most=256)
_MEMORY_MIB = env.memory_mib() // WEB_CONCURRENCY
# How many passwords a process hashes at once.
ARGON2_CONCURRENCY = env.passwords_at_once(
    processors=env.processors(), threads=WEB_THREADS, memory_mib=_MEMORY_MIB
)
# The memory that a process may use for requests and answers that are under way (see pipedai.server.memory_budget).
MEMORY_BUDGET_MIB = env.memory_budget_mib(_MEMORY_MIB)

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": [],
    "DEFAULT_PERMISSION_CLASSES": [],
    "DEFAULT_RENDERER_CLASSES": ["pipedai.api.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["pipedai.api.parsers.StrictJSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "pipedai.api.renderers.ContentNegotiation",
    "DEFAULT_SCHEMA_CLASS": "pipedai.api.schema.auto.ApiSchema",
    "EXCEPTION_HANDLER": "pipedai.api.exceptions.handle_exception",
    "URL_FORMAT_OVERRIDE": None,
    # DRF need not format times, because the API's renderer does.
    "DATETIME_FORMAT": None,
    "UNAUTHENTICATED_USER": None,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "PipedAI API",
    "DESCRIPTION": "Orchestrator and ledger of scheduled AI-agent work. [API.md](/api/docs/API.md) tells the whole.",
    "VERSION": VERSION,
    "OAS_VERSION": "3.1.1",
    "SERVERS": [{"url": "/api/v1"}],
    # Turns off drf-spectacular's check at deployment, because an error in the OpenAPI schema is no unsafe setting.
    # bin/test checks the schema in a step of its own.
    "ENABLE_DJANGO_DEPLOY_CHECK": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SCHEMA_PATH_PREFIX_TRIM": True,
    "CAMELIZE_NAMES": True,
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATION_PARAMETERS": False,
    "ENUM_SUFFIX": "",
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "HealthStatus": "pipedai.api.service.HEALTHY",
        "ReplicaState": "pipedai.api.service.REPLICA_STATES",
        "ActorType": "workspaces.serializers.ACTOR_TYPES",
        "Role": "workspaces.roles.Role",
        "KeyRole": "workspaces.roles.KEY_ROLES",
        "KeyPrefix": "workspaces.models.ApiKey.Kind",
        "OverlapPolicy": "triggers.models.Trigger.OverlapPolicy",
        "RunStatus": "triggers.states.Status",
        "Outcome": "triggers.states.REPORTED",
        "RunSource": "triggers.states.Source",
        "FaultClass": "triggers.states.FaultClass",
        "ApprovalStatus": "triggers.states.ApprovalStatus",
        "TickDecision": "triggers.states.Decision",
        "EventDecision": "triggers.states.EventDecided",
        "ApprovalDecision": "triggers.approvals.views.DECISIONS",
        "DeliveryStatus": "triggers.models.Delivery.Status",
        "AuthMode": "workers.models.Worker.AuthMode",
        "WorkerPresence": "workers.serializers.PRESENCE",
        "TriggerHealth": "triggers.states.Health",
        "IncidentKind": "notices.states.Kind",
        "AttentionKind": "notices.attention.KINDS",
        "ChannelKind": "notices.models.Channel.Kind",
        "ChannelEvent": "notices.states.EVENTS",
        "NoticeStatus": "notices.models.Notice.Status",
        "CallerKind": "workers.views.CALLER_KINDS",
        "Kind": "workers.models.Enrollment.Kind",
        "ToolCallOutcome": "triggers.runs.outcome.CALL_OUTCOMES",
        "ToolCallEffect": "triggers.runs.outcome.CALL_EFFECTS",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "pipedai.api.schema.auto.complete",
        "triggers.webhooks.sending.add_webhook",
    ],
}
# All other settings of the JWTs are in accounts.sessions.
SIMPLE_JWT = {"TOKEN_TYPE_CLAIM": "typ"}

# --- Metrics -----------------------------------------------------------------------------------------------

# The token that Prometheus must send to read the metrics. Without a token there are no metrics.
METRICS_TOKEN = env.text("METRICS_TOKEN")
# The `host:port` on which the scheduler process answers scrapes. The web process answers them on its own port.
SCHEDULER_METRICS_BIND = env.text("SCHEDULER_METRICS_BIND")

# --- Traces ------------------------------------------------------------------------------------------------

# TRACES_ENDPOINT and OTEL_SDK_DISABLED come from standard variables of OpenTelemetry. OpenTelemetry's packages read its
# other variables themselves.
TRACES_ENDPOINT = env.text("OTEL_EXPORTER_OTLP_ENDPOINT")
OTEL_SDK_DISABLED = env.flag("OTEL_SDK_DISABLED", default=False)

# --- Logs --------------------------------------------------------------------------------------------------
LOG_FORMAT = env.choice("LOG_FORMAT", ("json", "text"), "json" if PRODUCTION else "text")
LOG_LEVEL = env.choice("LOG_LEVEL", ("DEBUG", "INFO", "WARNING", "ERROR"), "INFO")
LOGGING_CONFIG = None
DEFAULT_EXCEPTION_REPORTER_FILTER = "pipedai.reporting.BlindReporterFilter"
logs.configure(form=LOG_FORMAT, level=LOG_LEVEL)

if PRODUCTION:
    # Redirecting plain HTTP is the task of the router in front of the service, where TLS ends.
    SECURE_SSL_REDIRECT = False
    SECURE_HSTS_SECONDS = 31_536_000

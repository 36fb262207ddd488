"""Each way to start the service prints a sentence for each unfit setting, and nothing else."""

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps

from bin.services import procfile
from pipedai import checks, env
from pipedai.tests.test_checks import ids_of_rules

# Nothing listens at this URL, so a process that starts by mistake ends at once.
NO_DATABASE = "postgres://nobody@127.0.0.1:1/nowhere"
SECRET_KEY = base64.b64encode(bytes(range(100, 148))).decode()
MASTER_KEY = base64.b64encode(bytes(range(200, 232))).decode()
PRODUCTION = {
    "PIPEDAI_ENV": "production",
    "SECRET_KEY": SECRET_KEY,
    "MASTER_KEYS": f"k1:{MASTER_KEY}",
    "ALLOWED_HOSTS": "api.example.com",
    "PUBLIC_URL": "https://api.example.com",
    "DATABASE_URL": NO_DATABASE,
}
EMBEDDED = {"DATABASE_URL": "", "PIPEDAI_DATA_DIR": "{directory}"}

PROCESSES = procfile(env.BASE_DIR / "Procfile")

# The rule, the unsafe settings, and the beginning of the sentence. All other settings are fit for production.
UNSAFE = [
    (
        "E001",
        {"SECRET_KEY": ""},
        "SECRET_KEY is or falls back to the well-known development key: set it",
    ),
    (
        "E001",
        {"SECRET_KEY": "short"},
        "SECRET_KEY and SECRET_KEY_FALLBACKS need 50 random characters",
    ),
    (
        "E001",
        {"SECRET_KEY_FALLBACKS": "short"},
        "SECRET_KEY and SECRET_KEY_FALLBACKS need 50 random",
    ),
    (
        "E002",
        {"MASTER_KEYS": ""},
        "MASTER_KEYS holds the well-known development key: set it to k1: and",
    ),
    (
        "E002",
        {"MASTER_KEYS": "k1"},
        "Each of MASTER_KEYS must be <id>:<base64 of 32 random bytes>: set it",
    ),
    (
        "E002",
        {"MASTER_KEYS": f"k1:{'A' * 43}="},
        "MASTER_KEYS holds a key that is not random: set it",
    ),
    ("E004", {"ALLOWED_HOSTS": ""}, "ALLOWED_HOSTS is empty or holds *: set it"),
    ("E004", {"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS is empty or holds *: set it"),
    ("E005", {"ALLOWED_ORIGINS": "*"}, "ALLOWED_ORIGINS holds *, which is no https origin: set it"),
    (
        "E005",
        {"ALLOWED_ORIGINS": "null"},
        "ALLOWED_ORIGINS holds null, which is no https origin: set it",
    ),
    (
        "E005",
        {"ALLOWED_ORIGINS": "https://a.example.com,http://b.example.com"},
        "ALLOWED_ORIGINS holds http://b.example.com, which is no https origin: set it",
    ),
    (
        "E006",
        {"COOKIE_SAMESITE": "None"},
        "COOKIE_SAMESITE=None lets every site send the cookie along: set",
    ),
    (
        "E008",
        EMBEDDED,
        "{directory}/keys.env keeps a key beside the embedded database that it protects",
    ),
    (
        "E009",
        {"WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8"},
        "WEBHOOK_ALLOWED_NETWORKS holds 127.0.0.0/8, which has loopback addresses in it: set it",
    ),
    (
        "E009",
        {"WEBHOOK_ALLOWED_NETWORKS": "169.254.169.254"},
        "WEBHOOK_ALLOWED_NETWORKS holds 169.254.169.254, which has cloud metadata addresses in it",
    ),
    ("E010", {"PUBLIC_URL": ""}, "PUBLIC_URL is no https URL: set it"),
    (
        "E010",
        {"PUBLIC_URL": "http://api.example.com"},
        "PUBLIC_URL is no https URL: set it",
    ),
    (
        "E011",
        {"TRUSTED_PROXIES": "heroku"},
        "TRUSTED_PROXIES must list IP addresses or networks; 'heroku'",
    ),
    (
        "E011",
        {"TRUSTED_PROXIES": "::/0"},
        "TRUSTED_PROXIES holds every address, so that each client may",
    ),
    (
        "E013",
        {"PYTHONASYNCIODEBUG": "1"},
        "PYTHONASYNCIODEBUG logs values that the program holds: unset",
    ),
    ("E014", {"METRICS_TOKEN": "short"}, "METRICS_TOKEN needs 32 random characters: set it"),
    ("E015", {"EMAIL_FROM": "PipedAI"}, "EMAIL_FROM is no address: set it"),
    (
        "E015",
        {"EMAIL_URL": "smtp+tls://us:hunter2@mail.example.com"},
        "EMAIL_URL is set and EMAIL_FROM is not, or names this machine: set it",
    ),
    (
        "E016",
        {"EMAIL_URL": "smtp://us:hunter2@mail.example.com", "EMAIL_FROM": "a@example.com"},
        "EMAIL_URL sends its password in clear: set it",
    ),
    (
        "E017",
        {"DASHBOARD_URL": "http://app.example.com"},
        "DASHBOARD_URL is no https URL: set it",
    ),
    (
        "E018",
        {
            "OIDC_ISSUER": "http://login.example.com",
            "OIDC_CLIENT_ID": "a",
            "OIDC_CLIENT_SECRET": "b",
        },
        "OIDC_ISSUER is no https URL: set it",
    ),
]
# These are refused in development too, because nobody can tell what they mean.
MALFORMED = [
    ({"PIPEDAI_ENV": "prod"}, "PIPEDAI_ENV must be one of: development, production."),
    ({"PORT": "http"}, "PORT must be a whole number."),
    ({"PORT": "99999"}, "PORT must be between 1 and 65535."),
    ({"WEB_THREADS": "many"}, "WEB_THREADS must be a whole number."),
    ({"RUN_LEASE_SECONDS": "0"}, "RUN_LEASE_SECONDS must be between 1 and 86400."),
    ({"COOKIE_SAMESITE": "none"}, "COOKIE_SAMESITE must be one of: Lax, Strict, None."),
    ({"LOG_LEVEL": "loud"}, "LOG_LEVEL must be one of: DEBUG, INFO, WARNING, ERROR."),
    ({"DATABASE_PREPARE": "maybe"}, "DATABASE_PREPARE must be true or false."),
    ({"DATABASE_URL": "mysql://a:hunter2@db/x"}, "DATABASE_URL must be a URL such as postgres://"),
    ({"DATABASE_URL": "postgres://a:hunter2@db:x/x"}, "DATABASE_URL must be a URL such as"),
    ({"DATABASE_LISTEN_URL": "hunter2"}, "DATABASE_LISTEN_URL must be a URL such as postgres://"),
    (
        {"MASTER_KEYS": "hunter2"},
        "Each of MASTER_KEYS must be <id>:<base64 of 32 random bytes>: set",
    ),
    ({"MASTER_KEYS": ","}, "MASTER_KEYS must hold at least one key, and no id twice: set it"),
    ({"TRUSTED_PROXIES": "heroku"}, "TRUSTED_PROXIES must list IP addresses or networks; 'heroku'"),
    (
        {"WEBHOOK_ALLOWED_NETWORKS": "intranet"},
        "WEBHOOK_ALLOWED_NETWORKS holds intranet, which is no network: set it",
    ),
    ({"PUBLIC_URL": "api.example.com"}, "PUBLIC_URL is no http or https URL: set it"),
    ({"PUBLIC_URL": "https://[api"}, "PUBLIC_URL is no http or https URL: set it"),
    ({"EMAIL_FROM": "PipedAI"}, "EMAIL_FROM is no address: set it"),
    ({"DASHBOARD_URL": "app.example.com"}, "DASHBOARD_URL is no http or https URL: set it"),
]

# This runs manage.py in a fork for each row. It is as good as a new process, but need not import the packages again,
# which are those that read no settings. A fork ends without clearing up, which would copy the memory of all that has
# been imported.
FORKING = """
import gc, json, os, runpy, signal, sys, tempfile
import corsheaders, django.core.management, environ, httpcore, httpx, nacl.secret, psutil, psycopg, structlog
import django.contrib.admin, django.contrib.auth.hashers, django.db.backends.postgresql.base, django.db.migrations
import django_filters, smtplib, ssrfguard, uuid_utils
said = []
gc.freeze()
for number, environment in enumerate(json.load(sys.stdin)):
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        if not (pid := os.fork()):
            os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
            signal.alarm(60)
            os.environ.update(environment)
            sys.argv = ["manage.py", ("check", "migrate", "runscheduler", "seed_demo")[number % 4]]
            try:
                runpy.run_path("manage.py", run_name="__main__")
            except SystemExit as ended:
                if isinstance(ended.code, str):
                    print(ended.code, file=sys.stderr)
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(1 if isinstance(ended.code, str) else ended.code or 0)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0), err.seek(0)
        said.append((code, out.read(), err.read()))
json.dump(said, sys.stdout)
"""


def run(*command, given="", **environment):
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        command,
        cwd=env.BASE_DIR,
        env={"PATH": path, **environment},
        input=given,
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )


@pytest.fixture
def directory(tmp_path):
    """Makes a data directory that contains a key."""
    (tmp_path / "keys.env").write_text(SECRET_KEY)
    return str(tmp_path)


def test_manage_py_refuses_each_with_its_sentence_and_nothing_else(directory):
    rows = [({**PRODUCTION, **changes}, sentence) for _, changes, sentence in UNSAFE]
    rows += [
        ({"DATABASE_URL": NO_DATABASE, **changes}, sentence) for changes, sentence in MALFORMED
    ]
    given = json.dumps([changes for changes, _ in rows]).replace("{directory}", directory)

    answers = json.loads(run(sys.executable, "-c", FORKING, given=given).stdout)

    for (_, sentence), (code, out, err) in zip(rows, answers, strict=True):
        assert (code, out, err.count("\n")) == (1, "", 1), (sentence, out, err)
        assert err.startswith(sentence.replace("{directory}", directory))
        assert not [key for key in (SECRET_KEY, MASTER_KEY, "hunter2") if key in err]


def test_every_rule_is_started_with():
    assert {check_id for check_id, _, _ in UNSAFE} == ids_of_rules(checks.PRODUCTION)


def test_the_settings_are_checked_before_any_other_app_starts():
    assert next(iter(apps.get_app_configs())).name == "pipedai"


@pytest.mark.parametrize("process", ["release", "web", "scheduler"])
def test_each_process_of_the_procfile_names_all_that_is_unsafe(process, directory):
    """Each process uses the rules' own sentences, because all of them make the same checks at start."""
    unsafe = {
        "PIPEDAI_DATA_DIR": directory,
        "METRICS_TOKEN": "short",
        "PYTHONASYNCIODEBUG": "1",
    }

    refused = run("sh", "-c", PROCESSES[process], **unsafe)

    assert refused.returncode == 1
    assert [sentence.partition(" ")[0] for sentence in refused.stderr.splitlines()] == [
        "SECRET_KEY",
        "MASTER_KEYS",
        "ALLOWED_HOSTS",
        "PUBLIC_URL",
        "PYTHONASYNCIODEBUG",
        "METRICS_TOKEN",
    ]


def test_gunicorn_by_itself_goes_through_it_too(directory):
    options = ("-c", "python:pipedai.server.gunicorn_conf", "pipedai.asgi:application")
    unsafe = {**PRODUCTION, "PIPEDAI_DATA_DIR": directory, "METRICS_TOKEN": "short"}

    refused = run(sys.executable, "-m", "gunicorn", *options, **unsafe)

    assert refused.returncode == 1
    assert refused.stderr.startswith("METRICS_TOKEN needs 32")
    assert refused.stderr.count("\n") == 1


def test_the_web_process_checks_its_settings_without_serving():
    check = (sys.executable, "-m", "pipedai.server", "--check-config")
    refused = run(*check, **PRODUCTION, METRICS_TOKEN="short")
    assert refused.returncode == 1
    assert refused.stderr.startswith("METRICS_TOKEN needs 32")
    assert refused.stderr.count("\n") == 1
    assert run(*check, **PRODUCTION).returncode == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"WEB_CONCURRENCY": "abc"}, "WEB_CONCURRENCY must be a whole number.\n"),
        ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY must be between 1 and 256.\n"),
        ({"WEB_CONCURRENCY": "", "PORT": "http"}, "PORT must be a whole number.\n"),
        ({"DATABASE_URL": "hunter2"}, "DATABASE_URL must be a URL such as"),
    ],
)
def test_the_web_process_refuses_what_it_cannot_read(changes, sentence):
    refused = run("sh", "-c", PROCESSES["web"], **{**PRODUCTION, **changes})
    assert refused.returncode == 1
    assert refused.stderr.startswith(sentence)
    assert refused.stderr.count("\n") == 1

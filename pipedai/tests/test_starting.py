"""Each way to start the service prints a sentence for each unfit setting, and nothing else."""

import base64
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.apps import apps

from bin.services import procfile
from pipedai import checks, env
from pipedai.tests.test_checks import ids_of_rules
from testing.processes import warm_start

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
# The data directory contains this SECRET_KEY: see `directory`.
EMBEDDED = {"DATABASE_URL": "", "PIPEDAI_DATA_DIR": "{directory}", "SECRET_KEY": SECRET_KEY}

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
]
# The checks find these, after all settings have been read. The name stands in place of a rule.
UNCLEAR = [
    (
        "MASTER_KEYS",
        {"MASTER_KEYS": "hunter2"},
        "Each of MASTER_KEYS must be <id>:<base64 of 32 random bytes>: set",
    ),
    (
        "MASTER_KEYS",
        {"MASTER_KEYS": ","},
        "MASTER_KEYS must hold at least one key, and no id twice: set it",
    ),
    (
        "TRUSTED_PROXIES",
        {"TRUSTED_PROXIES": "heroku"},
        "TRUSTED_PROXIES must list IP addresses or networks; 'heroku'",
    ),
    (
        "WEBHOOK_ALLOWED_NETWORKS",
        {"WEBHOOK_ALLOWED_NETWORKS": "intranet"},
        "WEBHOOK_ALLOWED_NETWORKS holds intranet, which is no network: set it",
    ),
    ("PUBLIC_URL", {"PUBLIC_URL": "api.example.com"}, "PUBLIC_URL is no http or https URL: set it"),
    ("PUBLIC_URL", {"PUBLIC_URL": "https://[api"}, "PUBLIC_URL is no http or https URL: set it"),
    ("EMAIL_FROM", {"EMAIL_FROM": "PipedAI"}, "EMAIL_FROM is no address: set it"),
    (
        "DASHBOARD_URL",
        {"DASHBOARD_URL": "app.example.com"},
        "DASHBOARD_URL is no http or https URL: set it",
    ),
]

# What the web process can't read, so that it does not even begin to check.
WEB_REFUSES = [
    ({"WEB_CONCURRENCY": "abc"}, "WEB_CONCURRENCY must be a whole number."),
    ({"WEB_CONCURRENCY": "0"}, "WEB_CONCURRENCY must be between 1 and 256."),
    ({"WEB_CONCURRENCY": "", "PORT": "http"}, "PORT must be a whole number."),
    ({"DATABASE_URL": "hunter2"}, "DATABASE_URL must be a URL such as"),
]
WEB = ["-m", "pipedai.server"]
CHECK = [*WEB, "--check-config"]


def inherited():
    """What each process takes over from the environment of the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": path, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}


@pytest.fixture
def directory(tmp_path):
    """Makes a data directory that contains a key."""
    (tmp_path / "keys.env").write_text(SECRET_KEY)
    return str(tmp_path)


def together(rows):
    """Deals rows out to four processes, so that none has two rows of a rule or two values of a setting. Each process
    is its settings, and the beginnings of what it has to say.
    """
    processes: list[tuple[dict[str, str], dict[str, str]]] = [({}, {}) for _ in range(4)]
    for rule, changes, sentence in rows:
        fitting = [
            each
            for each in processes
            if rule not in each[1] and not each[0].keys() & changes.keys()
        ]
        settings, sentences = min(fitting, key=lambda each: len(each[1]))
        settings.update(changes)
        sentences[rule] = sentence
    return [(settings, list(sentences.values())) for settings, sentences in processes]


def test_each_is_refused_with_its_sentence_and_nothing_else(directory):
    rows = [({**PRODUCTION, **changes}, said) for changes, said in together(UNSAFE)]
    development = [*together(UNCLEAR), *((changes, [said]) for changes, said in MALFORMED)]
    rows += [({"DATABASE_URL": NO_DATABASE, **changes}, said) for changes, said in development]
    names = itertools.cycle(("check", "migrate", "runscheduler", "seed_demo"))
    starts = [(["manage.py", next(names)], *row) for row in rows]
    starts += [(WEB, {**PRODUCTION, **changes}, [sentence]) for changes, sentence in WEB_REFUSES]
    # gunicorn by itself goes through it too, and the web process can check its settings without serving.
    config = "python:pipedai.server.gunicorn_conf"
    by_itself = ["-m", "gunicorn", "-c", config, "pipedai.asgi:application"]
    short = {**PRODUCTION, "METRICS_TOKEN": "short"}
    starts += [(each, short, ["METRICS_TOKEN needs 32"]) for each in (by_itself, CHECK)]
    starts += [(CHECK, PRODUCTION, [])]
    for command, changes, sentences in starts:
        given = {name: value.replace("{directory}", directory) for name, value in changes.items()}
        ended = warm_start.run(command, inherited() | given)
        lines = ended.stderr.splitlines()
        assert (ended.returncode, len(lines)) == (int(bool(sentences)), len(sentences)), ended
        assert ended.stdout == "" or command == by_itself, "only gunicorn logs that it starts"
        for sentence in sentences:
            begins = sentence.replace("{directory}", directory)
            assert sum(line.startswith(begins) for line in lines) == 1, (sentence, ended)
        assert not [key for key in (SECRET_KEY, MASTER_KEY, "hunter2") if key in ended.stderr]


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

    refused = subprocess.run(
        ["sh", "-c", PROCESSES[process]],
        cwd=env.BASE_DIR,
        env=inherited() | unsafe,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert refused.returncode == 1
    assert [sentence.partition(" ")[0] for sentence in refused.stderr.splitlines()] == [
        "SECRET_KEY",
        "MASTER_KEYS",
        "ALLOWED_HOSTS",
        "PUBLIC_URL",
        "PYTHONASYNCIODEBUG",
        "METRICS_TOKEN",
    ]

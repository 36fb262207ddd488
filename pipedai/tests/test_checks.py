"""Tests every rule for production settings, the two places that apply them, and the commands that they don't stop."""

import base64
import os
import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from pipedai import apps, checks, env
from testing.processes import warm_start
from testing.world.cases import cases

# This key is fixed, because parallel test processes must collect the same parameters.
SECRET_KEY = base64.b64encode(bytes(range(100, 148))).decode()
OLD_SECRET_KEY = base64.b64encode(bytes(range(150, 198))).decode()
MASTER_KEY = base64.b64encode(bytes(range(200, 232))).decode()
SAFE = {
    "PRODUCTION": True,
    "SECRET_KEY": SECRET_KEY,
    "SECRET_KEY_FALLBACKS": [],
    "MASTER_KEYS": [f"k1:{MASTER_KEY}"],
    "ALLOWED_HOSTS": ["api.example.com"],
    "ALLOWED_ORIGINS": ["https://app.example.com"],
    "COOKIE_SAMESITE": "Lax",
    "PUBLIC_URL": "https://api.example.com",
    "TRUSTED_PROXIES": ["10.0.0.0/8"],
    "WEBHOOK_ALLOWED_NETWORKS": [],
    "METRICS_TOKEN": "",
    "EMAIL_URL": "",
    "EMAIL_FROM": "PipedAI <pipedai@localhost>",
}
MAIL_SERVER = "smtp+tls://us:word@mail.example.com"
DEVELOPMENT_SECRET_KEY = "development-only-secret-key-refused-in-production-0123456789"
DEVELOPMENT_MASTER_KEY = "ZGV2ZWxvcG1lbnQtb25seS1tYXN0ZXIta2V5LTMyYnQ="

CLIENT = {"OIDC_CLIENT_ID": "pipedai", "OIDC_CLIENT_SECRET": "a-secret"}
UNSAFE = [
    ("E001", {"SECRET_KEY": DEVELOPMENT_SECRET_KEY}, "SECRET_KEY"),
    ("E001", {"SECRET_KEY_FALLBACKS": [DEVELOPMENT_SECRET_KEY]}, "SECRET_KEY"),
    ("E001", {"SECRET_KEY": SECRET_KEY[:49]}, "50 random characters"),
    ("E001", {"SECRET_KEY": "abcd" * 20}, "50 random characters"),
    ("E001", {"SECRET_KEY_FALLBACKS": ["short"]}, "SECRET_KEY_FALLBACKS"),
    ("E002", {"MASTER_KEYS": []}, "MASTER_KEYS"),
    ("E002", {"MASTER_KEYS": [MASTER_KEY]}, "MASTER_KEYS"),
    ("E002", {"MASTER_KEYS": [f":{MASTER_KEY}"]}, "MASTER_KEYS"),
    ("E002", {"MASTER_KEYS": ["k1:bm90IDMyIGJ5dGVz"]}, "32 random bytes"),
    ("E002", {"MASTER_KEYS": ["k1:!"]}, "base64"),
    ("E002", {"MASTER_KEYS": [f"k1:{MASTER_KEY}", f"k1:{MASTER_KEY}"]}, "no id twice"),
    ("E002", {"MASTER_KEYS": [f"dev:{DEVELOPMENT_MASTER_KEY}"]}, "development key"),
    (
        "E002",
        {"MASTER_KEYS": [f"k2:{MASTER_KEY}", f"old:{DEVELOPMENT_MASTER_KEY}"]},
        "development key",
    ),
    ("E002", {"MASTER_KEYS": [f"k1:{'A' * 43}="]}, "not random"),
    ("E004", {"ALLOWED_HOSTS": []}, "ALLOWED_HOSTS"),
    ("E004", {"ALLOWED_HOSTS": ["api.example.com", "*"]}, "ALLOWED_HOSTS"),
    ("E004", {"ALLOWED_HOSTS": ["https://api.example.com"]}, "no host name"),
    ("E004", {"ALLOWED_HOSTS": ["api.example.com:443"]}, "no host name"),
    ("E005", {"ALLOWED_ORIGINS": ["*"]}, "ALLOWED_ORIGINS holds *"),
    ("E005", {"ALLOWED_ORIGINS": ["null"]}, "ALLOWED_ORIGINS holds null"),
    ("E005", {"ALLOWED_ORIGINS": ["https://*.example.com"]}, "ALLOWED_ORIGINS"),
    (
        "E005",
        {"ALLOWED_ORIGINS": ["https://app.example.com", "http://app.example.com"]},
        "ALLOWED_ORIGINS holds http://app.example.com",
    ),
    ("E005", {"ALLOWED_ORIGINS": ["https://app.example.com/"]}, "ALLOWED_ORIGINS"),
    ("E005", {"ALLOWED_ORIGINS": ["https://"]}, "ALLOWED_ORIGINS"),
    ("E005", {"ALLOWED_ORIGINS": ["https://a.example.com\x1b[2K"]}, r"\x1b"),
    ("E006", {"COOKIE_SAMESITE": "None", "ALLOWED_ORIGINS": []}, "ALLOWED_ORIGINS"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["10.0.0.0/8", "127.0.0.1/32"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["127.1.2.3"]}, "loopback"),
    ("E014", {"METRICS_TOKEN": "a" * 31}, "32 random characters"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["0.0.0.0/0"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["::/0"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["::1"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["::ffff:127.0.0.1"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["::ffff:0:0/96"]}, "loopback"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["169.254.0.0/16"]}, "metadata"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["168.63.129.16"]}, "metadata"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["100.64.0.0/10"]}, "metadata"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["fd00:ec2::/32"]}, "metadata"),
    ("E009", {"WEBHOOK_ALLOWED_NETWORKS": ["intranet"]}, "no network"),
    ("E010", {"PUBLIC_URL": "http://localhost:8000"}, "PUBLIC_URL"),
    ("E010", {"PUBLIC_URL": "https://"}, "PUBLIC_URL"),
    ("E010", {"PUBLIC_URL": "https://[api"}, "PUBLIC_URL"),
    ("E010", {"PUBLIC_URL": "https://api.example.com:http"}, "PUBLIC_URL"),
    ("E010", {"PUBLIC_URL": "https://me:word@api.example.com"}, "PUBLIC_URL"),
    ("E010", {"PUBLIC_URL": "https://api.example.com?a=b"}, "PUBLIC_URL"),
    ("E011", {"TRUSTED_PROXIES": ["heroku"]}, "'heroku' is neither"),
    ("E011", {"TRUSTED_PROXIES": ["10.0.0.0/8", "0.0.0.0/0"]}, "every address"),
    ("E011", {"TRUSTED_PROXIES": ["::/0"]}, "every address"),
    ("E013", {"PYTHONASYNCIODEBUG": "1"}, "PYTHONASYNCIODEBUG"),
    ("E013", {"PYTHONDEVMODE": "1"}, "PYTHONDEVMODE"),
    ("E015", {"EMAIL_FROM": "PipedAI"}, "no address"),
    ("E015", {"EMAIL_FROM": "a@example.com, b@example.com"}, "no address"),
    ("E015", {"EMAIL_FROM": "a@example.com\nBcc: b"}, "no address"),
    ("E015", {"EMAIL_URL": MAIL_SERVER}, "EMAIL_FROM is not"),
    (
        "E016",
        {"EMAIL_URL": "smtp://us:word@mail.example.com", "EMAIL_FROM": "a@example.com"},
        "password in clear",
    ),
    ("E017", {"DASHBOARD_URL": "http://app.example.com"}, "DASHBOARD_URL"),
    ("E017", {"DASHBOARD_URL": "app.example.com"}, "DASHBOARD_URL"),
    ("E018", {**CLIENT, "OIDC_ISSUER": "http://login.example.com"}, "OIDC_ISSUER"),
    ("E018", {**CLIENT, "OIDC_ISSUER": "https://login.example.com?a"}, "OIDC_ISSUER"),
    ("E018", CLIENT, "go together"),
    ("E018", {"OIDC_ISSUER": "https://login.example.com"}, "go together"),
    ("E018", {"OIDC_ONLY": True}, "OIDC_ONLY"),
]
# These variables are not in the settings, because the code that uses them reads them from the environment.
OF_THE_ENVIRONMENT = ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE")


@pytest.fixture
def production(settings, tmp_path, monkeypatch):
    """Sets production settings that break no rule, and returns a function that changes some."""

    def change(changes):
        for name, value in changes.items():
            if name in OF_THE_ENVIRONMENT:
                monkeypatch.setenv(name, value)
            else:
                setattr(settings, name, value)

    for name in OF_THE_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)

    settings.DATA_DIR = tmp_path / "data"
    change(SAFE)
    return change


def found():
    return [problem.id for problem in checks.problems()]


def test_sane_production_settings_break_no_rule(production):
    assert found() == []
    checks.refuse_unfit_settings()


@pytest.mark.parametrize(
    "changes",
    [
        {"SECRET_KEY_FALLBACKS": [OLD_SECRET_KEY]},
        {"ALLOWED_ORIGINS": []},
        {"COOKIE_SAMESITE": "None"},
        {"ALLOWED_ORIGINS": ["https://app.example.com:8443"]},
        {"ALLOWED_HOSTS": ["api.example.com", ".example.org", "[2001:db8::1]", "192.0.2.1"]},
        {"PUBLIC_URL": "https://example.com:8443/pipedai"},
        {"TRUSTED_PROXIES": []},
        {"EMAIL_URL": MAIL_SERVER, "EMAIL_FROM": "PipedAI <noreply@example.com>"},
        {"EMAIL_URL": "smtp://relay.internal", "EMAIL_FROM": "noreply@example.com"},
        {"EMAIL_URL": "smtp://us:word@127.0.0.1", "EMAIL_FROM": "noreply@example.com"},
        {"WEBHOOK_ALLOWED_NETWORKS": ["10.0.0.0/8", "fd12:3456::/32", "::ffff:10.0.0.0/104"]},
    ],
)
def test_what_an_operator_may_choose_breaks_no_rule(production, changes):
    production(changes)
    assert found() == []


@pytest.mark.parametrize(("check_id", "changes", "words"), UNSAFE)
def test_each_unsafe_setting_is_refused_with_one_sentence(production, check_id, changes, words):
    production(changes)

    (problem,) = checks.problems()

    assert problem.id == f"pipedai.{check_id}"
    assert words in problem.msg
    assert problem.msg.endswith(".")
    assert "\n" not in problem.msg
    for key in (SECRET_KEY[:49], MASTER_KEY, DEVELOPMENT_SECRET_KEY, DEVELOPMENT_MASTER_KEY):
        assert key not in problem.msg
    with pytest.raises(ImproperlyConfigured) as refused:
        checks.refuse_unfit_settings()
    assert str(refused.value) == problem.msg


@pytest.mark.parametrize("key", [SECRET_KEY, MASTER_KEY])
def test_a_key_kept_beside_the_embedded_database_is_refused(production, tmp_path, key):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "postgres").mkdir()
    (data_dir / "notes.txt").write_text("nothing secret")
    assert found() == []

    (data_dir / "keys.env").write_text(f"export A_KEY='{key}'\n")

    (problem,) = checks.problems()
    assert problem.id == "pipedai.E008"
    assert str(data_dir / "keys.env") in problem.msg
    assert key not in problem.msg


def test_the_checkouts_env_file_inside_the_data_directory_is_refused(
    production, settings, tmp_path, monkeypatch
):
    checkout = tmp_path / "data" / "checkout"
    checkout.mkdir(parents=True)
    (checkout / ".env").write_text(f"SECRET_KEY={SECRET_KEY}\n")
    monkeypatch.setattr(env, "BASE_DIR", checkout)

    assert found() == ["pipedai.E008"]

    settings.DATA_DIR = tmp_path / "elsewhere"
    assert found() == []


def test_a_key_beside_the_data_of_another_database_is_let_be(
    production, settings, tmp_path, monkeypatch
):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "keys.env").write_text(SECRET_KEY)
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django.db.backends.postgresql")

    assert found() == []


def ids_of_rules(tag):
    """The ids in the decorators of the rules with this tag, and of the URLs, whose rules have both."""
    rules = "".join(file.read_text() for file in Path(checks.__file__).parent.glob("*.py"))
    more = ", READABLE" if tag == checks.READABLE else ""
    found = rf'@rule\("pipedai\.(E\d+)"{more}\)|^url_rules\(\s+"pipedai\.(E\d+)"'
    return {one or other for one, other in re.findall(found, rules, re.MULTILINE)}


def test_every_rule_is_in_the_tables():
    in_tables = {check_id for check_id, _, _ in UNSAFE} | {"E008"}
    assert in_tables == ids_of_rules(checks.PRODUCTION)
    assert set(UNREADABLE) == ids_of_rules(checks.READABLE)


def test_development_starts_with_settings_that_are_unsafe(production):
    production({"ALLOWED_HOSTS": ["*"], "PRODUCTION": False})
    checks.refuse_unfit_settings()


# For each rule that holds in development too: its setting, and a value that can't be read.
UNREADABLE = {
    "E002": ("MASTER_KEYS", ["k1"]),
    "E009": ("WEBHOOK_ALLOWED_NETWORKS", ["intranet"]),
    "E010": ("PUBLIC_URL", "https://[api"),
    "E011": ("TRUSTED_PROXIES", ["heroku"]),
    "E015": ("EMAIL_FROM", "PipedAI"),
    "E017": ("DASHBOARD_URL", "app.example.com"),
    "E018": ("OIDC_ISSUER", "login.example.com"),
}


@pytest.mark.parametrize("check_id", UNREADABLE)
def test_what_cannot_be_read_is_refused_in_development_too(production, check_id):
    name, value = UNREADABLE[check_id]
    production({name: value, "PRODUCTION": False})

    with pytest.raises(ImproperlyConfigured, match=name):
        checks.refuse_unfit_settings()


def test_several_problems_are_all_named_at_once(production):
    production({"ALLOWED_HOSTS": ["*"], "METRICS_TOKEN": "short"})
    with pytest.raises(ImproperlyConfigured, match=r"(?s)ALLOWED_HOSTS.*\nMETRICS_TOKEN"):
        checks.refuse_unfit_settings()


@cases(
    "command",
    [
        "manage.py",
        "manage.py help migrate",
        "manage.py --help",
        "/srv/app/manage.py migrate --help",
        "manage.py runscheduler -h",
        "manage.py version",
        "django-admin --version",
        "manage.py check --deploy",
        "manage.py check --fail-level WARNING --deploy",
    ],
)
def test_help_and_the_checks_themselves_work_with_any_settings(command):
    assert apps._only_tells(command.split())


@cases(
    "command",
    [
        "gunicorn",
        "gunicorn --help",
        "-c",
        "manage.py check",
        "manage.py migrate",
        "manage.py runscheduler",
        "manage.py seed_demo --deploy",
        "manage.py shell -c help",
    ],
)
def test_everything_else_is_refused_in_production(command):
    assert not apps._only_tells(command.split())


def run(*command, **environment):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    given = {"DJANGO_SETTINGS_MODULE": "pipedai.settings", **kept, **environment}
    return warm_start.run(command, given)


def test_the_deploy_check_names_what_is_missing_and_passes_when_it_is_set(tmp_path):
    where = {"PIPEDAI_ENV": "production", "PIPEDAI_DATA_DIR": str(tmp_path / "data")}
    check = ("manage.py", "check", "--deploy", "--fail-level", "WARNING")

    missing = run(*check, **where)
    complete = run(
        *check,
        **where,
        SECRET_KEY=SECRET_KEY,
        MASTER_KEYS=f"k1:{MASTER_KEY}",
        ALLOWED_HOSTS="api.example.com",
        PUBLIC_URL="https://api.example.com",
    )

    assert missing.returncode == 1
    assert {f"pipedai.E00{number}" in missing.stderr for number in (1, 2, 4)} == {True}
    assert complete.returncode == 0, complete.stderr


def test_the_published_development_keys_are_the_ones_that_are_refused(settings):
    published = (settings.DEVELOPMENT_SECRET_KEY, *settings.DEVELOPMENT_MASTER_KEYS)
    assert published == (DEVELOPMENT_SECRET_KEY, f"dev:{DEVELOPMENT_MASTER_KEY}")

"""The runbooks of docs/security.md work as written, and the things that it names exist."""

import argparse
import os
import re
import subprocess
import sys

from django.core.management import get_commands, load_command_class

from pipedai import env, reporting
from pipedai.api import tokens
from pipedai.embedded.cluster import DISCREET, wheel_bin
from testing.world.cast import make_cast, session_cookie
from workspaces.models import ApiKey

PAGE = (env.BASE_DIR / "docs" / "security.md").read_text()
REFERENCE = (env.BASE_DIR / "API.md").read_text()
RUNBOOKS = PAGE.split("## When something got out\n", 1)[1].split("\n## ", 1)[0]


def blocks(text, language):
    """Returns the fenced blocks of a language, also those inside lists."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def test_the_commands_of_the_runbooks_work(server):
    cast = make_cast()
    token = cast.mint("pwk", role="admin")
    key = ApiKey.objects.get(token_digest=tokens.digest(token))
    given = {
        "API": server.api,
        "ENVIRONMENT": cast.environment.id,
        "KEY": key.id,
        "WORKER": cast.worker.worker_id,
        "TRIGGER": cast.trigger_id,
        "SESSION": session_cookie(cast.owner),
        "DATABASE_URL": server.database_url,
        "PATH": os.pathsep.join([str(wheel_bin()), os.environ["PATH"]]),
    }
    as_you = """
        as_you() {
          curl -sS --fail-with-body -H "Cookie: auth_token=$SESSION" -H 'Content-Type: application/json' "$@"
        }
    """
    inline = re.findall(r'`(psql "\$DATABASE_URL"[^`]*)`', RUNBOOKS)
    script = "\n".join([as_you, *blocks(RUNBOOKS, "sh"), 'done_by "$WORKER"', *inline])
    assert script.count("python manage.py") == 3
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace("python manage.py", f"{sys.executable} manage.py")],
        cwd=env.BASE_DIR,
        env={**os.environ, **{name: str(value) for name, value in given.items()}},
        input=f"{token}\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    said = process.stdout
    assert process.returncode == 0, said + process.stderr
    assert f"{key.id}|{cast.environment.id}|{key.name}" in said
    assert "worker.registered" in said or "UPDATE 1" in said
    key.refresh_from_db()
    assert key.revoked_at is not None
    assert token not in said + process.stderr


def test_every_command_that_it_names_exists_with_its_options():
    named = re.findall(r"manage\.py ([a-z_]+)((?: --[a-z-]+)*)", PAGE)
    assert {"rotate_keys", "check_keys", "check_deploy", "check"} <= {name for name, _ in named}
    for name, options in named:
        app = get_commands()[name]
        assert isinstance(app, str)
        parser = load_command_class(app, name).create_parser("manage.py", name)
        assert isinstance(parser, argparse.ArgumentParser)
        assert set(options.split()) <= set(parser._option_string_actions), name


def test_every_route_that_it_names_is_in_the_api_reference():
    def spelled(route):
        return re.sub(r":\w+", ":id", route)

    named = re.findall(r"`((?:GET|POST|PATCH|DELETE) /[^\s`]+)`", PAGE)
    there = re.findall(r"^### `([A-Z]+ /\S+)`", REFERENCE, re.MULTILINE)
    assert len(named) > 4
    assert {spelled(route) for route in named} - {spelled(route) for route in there} == set()


def test_the_settings_for_a_foreign_server_are_those_of_the_embedded_one():
    (block,) = [block for block in blocks(PAGE, "ini") if "log_statement" in block]
    named = dict(re.findall(r"(\w+) = (\S+)", block))
    assert named == {name: DISCREET[name] for name in named}
    assert len(named) == 6


def test_the_options_for_sentry_are_where_it_says():
    (example,) = [block for block in blocks(PAGE, "python") if "sentry_sdk" in block]
    assert "from pipedai.reporting import SENTRY_OPTIONS\n" in example
    assert reporting.SENTRY_OPTIONS["include_local_variables"] is False


def test_every_test_that_it_names_exists():
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", PAGE))
    assert named
    files = [path for path in env.BASE_DIR.rglob("test_*.py") if ".venv" not in path.parts]
    there = {path.name for path in files}
    for path in files:
        there |= set(re.findall(r"def (test_\w+)", path.read_text()))
    assert named - there == set()

"""The reporters of crashes (Sentry's SDK, Django's own, faulthandler) show no values of variables."""

import faulthandler
import json
import os
import subprocess
import sys
from http.cookies import SimpleCookie
from typing import Any

from django.test import RequestFactory
from django.views.debug import ExceptionReporter, get_exception_reporter_filter

from console.asking import Answer as OwnAnswer
from console.forms import Form, Look
from pipedai import crypto, env, reporting
from pipedai.api import tokens
from pipedai.ids import new_id
from pipedai.outgoing.posts import Answer
from pipedai.server.lanes import _Answer as WebAnswer
from testing.processes.web_process import url_of
from testing.world.cast import make_cast, session_cookie
from workspaces.files.changes import Change, Request
from workspaces.files.kinds import kinds

PLANTED = "planted-value-that-no-pattern-knows"

# The code of a process with the real SDK and all its integrations. Its transport prints what it would send.
CRASHING = """
import json, os, sys
import sentry_sdk
from sentry_sdk.transport import Transport
from pipedai.reporting import SENTRY_OPTIONS
given = json.load(sys.stdin)

class Printed(Transport):
    def capture_envelope(self, envelope):
        sys.__stdout__.write(envelope.serialize().decode() + "\\n")

sentry_sdk.init("https://key@sentry.example/1", transport=Printed, traces_sample_rate=1.0, **SENTRY_OPTIONS)
import django
django.setup()
sys.stdout = sys.stderr
from django.test import Client
from django.db import connection
from triggers import services, views
from workspaces.encryption import keys

def crash(*held):
    plaintext = next(value for value in held if isinstance(value, bytes)).decode()
    connection.cursor().execute("SELECT %s::uuid", [given["pwk"]])

keys.seal = crash
client = Client(raise_request_exception=False)
for token in (given["pwk"], given["unknown"]):
    answer = client.post(
        f"/api/v1/environments/{given['environment']}/triggers?token={given['pwk']}",
        json.dumps(given["trigger"]), content_type="application/json",
        headers={"Authorization": f"Bearer {token}", "Cookie": f"auth_token={given['cookie']}"},
    )
    print(answer.status_code, answer.content)
sentry_sdk.flush()
"""


def test_sentry_is_told_of_a_crash_and_of_no_secret(own_database):
    cast = make_cast()
    given: dict[str, Any] = {
        "environment": str(cast.environment.id),
        "pwk": cast.mint("pwk", role="admin"),
        "unknown": tokens.mint("pwk").value,
        "cookie": session_cookie(cast.owner),
        "trigger": {
            "name": "x",
            "prompt": "x",
            "mcpUrl": "https://mcp.example/",
            "mcpHeaders": {"x-anything": PLANTED},
            "webhookUrl": "https://hooks.example/",
            "webhookSecret": f"{PLANTED}-too",
        },
    }
    process = subprocess.run(
        [sys.executable, "-c", CRASHING],
        cwd=env.BASE_DIR,
        env={
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "pipedai.settings",
            "DATABASE_URL": url_of(own_database),
            "ALLOWED_HOSTS": "testserver",
        },
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "500 b" in process.stderr
    reported = process.stdout
    assert "invalid input syntax for type uuid" in reported  # The crash was reported.
    assert "in seal" in reported or '"function":"crash"' in reported
    for secret in (PLANTED, given["pwk"][4:], given["unknown"][4:], given["cookie"]):
        assert secret not in reported
        assert secret not in process.stderr


def test_a_report_loses_what_was_held_wherever_it_is():
    frame = {"function": "f", "vars": {"headers": PLANTED}}
    report = {
        "exception": {"values": [{"value": "boom", "stacktrace": {"frames": [frame]}}]},
        "threads": {"values": [{"stacktrace": {"frames": [frame]}}]},
        "request": {
            "method": "POST",
            "url": "https://api.example.com/x",
            "data": PLANTED,
            "query_string": PLANTED,
            "headers": {"X-Anything": PLANTED},
        },
        "extra": {"password": PLANTED},
        "breadcrumbs": {"values": [{"message": f"token={PLANTED}"}]},
    }
    scrubbed = reporting.scrub_report(report)
    assert PLANTED not in json.dumps(scrubbed)
    assert scrubbed["request"] == {"method": "POST", "url": "https://api.example.com/x"}
    assert scrubbed["exception"]["values"][0]["stacktrace"]["frames"] == [{"function": "f"}]
    assert frame["vars"] == {"headers": PLANTED}


def test_djangos_own_report_shows_no_variable_and_nothing_of_the_request(settings):
    request = RequestFactory().post(
        "/x", {"field": PLANTED}, headers={"X-Anything": PLANTED, "Cookie": f"a={PLANTED}"}
    )
    try:
        _crash_holding(PLANTED)
    except ZeroDivisionError:
        reporter = ExceptionReporter(request, *sys.exc_info())
    assert isinstance(get_exception_reporter_filter(request), reporting.BlindReporterFilter)
    for report in (reporter.get_traceback_html(), reporter.get_traceback_text()):
        assert "ZeroDivisionError" in report
        assert PLANTED not in report
        assert settings.SECRET_KEY not in report


def test_faulthandler_shows_no_variable(tmp_path):
    with (tmp_path / "dump").open("w+") as dump:
        _dump_holding(PLANTED, dump)
        dump.seek(0)
        assert "_dump_holding" in (said := dump.read())
        assert PLANTED not in said


def test_what_holds_a_key_or_a_token_does_not_show_it():
    key = bytes(range(32))
    minted = tokens.mint("pwk")
    shown = [
        repr(crypto.MasterKey("k1", key)),
        repr(crypto.DataKey("d1", key)),
        repr(crypto.parse_master_keys(("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",))),
    ]
    assert not [text for text in shown if repr(key)[2:-1] in text or "AAECAw" in text]
    assert minted.value not in repr(minted)
    answered = Answer(200, 5, body=f'{{"access_token": "{PLANTED}"}}'.encode())
    assert PLANTED not in repr(answered)
    given = {"webhookSecret": PLANTED}
    kept = [
        OwnAnswer(200, given, SimpleCookie({"auth_token": PLANTED})),
        WebAnswer(200, [(b"set-cookie", PLANTED.encode())], PLANTED.encode()),
        Request("acme/agents", [given], given),
        Change(kinds()[0], "key", given, new_id(), values=given),
        Form(
            "POST", f"environments/{new_id()}/triggers", {"name": Look()}, values={"name": PLANTED}
        ).fields,
    ]
    assert PLANTED not in repr(kept)


def _crash_holding(secret: str) -> float:
    headers = {"x-anything": secret}
    return len(headers) / 0


def _dump_holding(secret: str, dump) -> None:
    headers = {"x-anything": secret}
    faulthandler.dump_traceback(dump)
    assert headers

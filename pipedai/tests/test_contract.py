"""The served API keeps to its schema for every caller and every request.

schemathesis searches for requests that crash the service, or whose answer has a status, headers or a body other than
the schema describes.
"""

import json
import subprocess
import sys

import httpx
import pytest

from pipedai.api import openapi
from pipedai.sql import database_now
from testing.probes.api_schema import camel
from testing.world.cast import make_cast, session_cookie
from testing.world.routes import set_stage
from testing.world.runs import Runs, allow

# A person's calls take about 20 s, but a machine may be busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
)
# schemathesis first tries each boundary of each field and parameter, valid and not, and then random values.
THOROUGH = ("--phases", "examples,coverage,fuzzing")
QUICK = ("--phases", "examples,fuzzing")


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


# Each of these operations ends the session with which it is called.
ENDING = ("login", "register", "logout")

# For each caller: its header, schemathesis's options, and a call that must still succeed afterwards. If it fails, the
# credentials were lost, and the calls before it proved nothing. Together the callers try each operation thoroughly,
# except the audit log, whose filter has too many words.
CALLERS = {
    "nobody": (
        lambda cast: {},
        (*THOROUGH, "--include-tag", "Accounts", "--include-tag", "Service"),
        "/health",
    ),
    "person": (
        lambda cast: {"Cookie": f"auth_token={session_cookie(cast.owner)}"},
        (
            *(*THOROUGH, "--exclude-tag", "Worker protocol", "--exclude-tag", "Service"),
            *(o for name in (*ENDING, "listAuditLog") for o in ("--exclude-operation-id", name)),
        ),
        "/auth/me",
    ),
    "key": (
        lambda cast: bearer(cast.mint("pwk", role="admin")),
        QUICK,
        "/environments/{environment_id}",
    ),
    "worker": (
        lambda cast: bearer(cast.worker.worker_token),
        (*THOROUGH, "--include-tag", "Worker protocol"),
        "/workers/{worker_id}/poll",
    ),
    "registration": (
        lambda cast: bearer(cast.mint("wrk")),
        (*THOROUGH, "--include-operation-id", "registerWorker"),
        "/health",
    ),
}


@pytest.mark.parametrize("caller", CALLERS)
def test_no_request_is_answered_in_a_way_that_the_schema_does_not_tell(caller, server, tmp_path):
    cast = make_cast()
    stage = set_stage(cast)
    if caller == "worker":
        _queue_for_each_claim(cast)
    credentials, options, last_call = CALLERS[caller]
    headers = credentials(cast)
    config = tmp_path / "schemathesis.toml"
    config.write_text(configuration(stage, headers))
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run",
        str(openapi.FILE), "--url", server.api, "--checks", ",".join(CHECKS), "--seed", "1",
        "--max-examples", "2", "--suppress-health-check", "all", "--warnings", "off",
        "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    last = httpx.get(server.api + last_call.format(**stage.ids), headers=headers)
    assert last.status_code == 200


def _queue_for_each_claim(cast):
    """Queues so many runs that no call which asks for the next run has to wait for one."""
    allow(cast.worker.worker_id, 900)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    for _ in range(300):
        runs.queue()


def configuration(stage, headers):
    """Configures the caller's credentials and ids that exist. With other ids schemathesis would mostly get 404."""
    ids = {**stage.ids, "run_id": stage.runs["claimed"]}
    lines = [
        "[headers]",
        *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in headers.items()),
        "[generation]",
        "with-security-parameters = false",  # Else a made-up token is sent and decides.
        "[parameters]",
        *(f'"path.{camel(name)}" = "{value}"' for name, value in ids.items()),
    ]
    return "\n".join(lines)

"""The served API keeps to its schema for every caller and every request.

schemathesis searches for requests that crash the service, or whose answer has a status, headers or a body other than
the schema describes. The fixture `server` watches the service's memory meanwhile.
"""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from pipedai.api import service
from pipedai.sql import database_now
from testing.probes.api_urls import api_routes
from testing.world.cast import make_cast, session_cookie
from testing.world.runs import Runs, allow
from testing.world.stage import set_stage

# The calls of all callers take a few minutes, as the streams of events are read for ten seconds each.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
)
# schemathesis first tries each boundary of each field and parameter, valid and not, and then random values: for one
# caller of each operation, and otherwise random values alone.
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


def test_no_request_is_answered_in_a_way_that_the_schema_does_not_tell(server, tmp_path):
    searches = [Search(caller, server.api, tmp_path / caller) for caller in CALLERS]
    # A person's calls mostly wait for streams of events, so the other callers' calls are made meanwhile.
    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(Search.run, searches))
    for search, done in zip(searches, ended, strict=True):
        assert done.returncode == 0, search.caller + done.stdout[-20_000:] + done.stderr
        last = httpx.get(search.last_url, headers=search.headers)
        assert last.status_code == 200, search.caller


class Search:
    """schemathesis's search with a caller's credentials, in a cast of the caller's own."""

    def __init__(self, caller, api, folder):
        cast = make_cast()
        stage = set_stage(cast)
        if caller == "worker":
            _queue_for_each_claim(cast)
        credentials, options, last_call = CALLERS[caller]
        self.caller = caller
        self.headers = credentials(cast)
        self.last_url = api + last_call.format(**stage.ids)
        self._folder = folder
        self._folder.mkdir()
        (folder / "openapi.json").write_text(json.dumps(schema_with_ids(stage)))
        (folder / "schemathesis.toml").write_text(configuration(self.headers))
        self._command = [
            sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", api,
            "--checks", ",".join(CHECKS), "--seed", "1", "--max-examples", "1",
            "--suppress-health-check", "all", "--warnings", "off", "--no-color", *options,
        ]  # fmt: skip

    def run(self):
        return subprocess.run(
            self._command,
            cwd=self._folder,
            # Before each call the whole environment is searched for proxies, so a small one is quicker.
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
            timeout=1150,
        )


def _queue_for_each_claim(cast):
    """Queues so many runs that no call which asks for the next run has to wait for one."""
    allow(cast.worker.worker_id, 900)
    runs = Runs(cast, cast.trigger_id, now=database_now())
    for _ in range(300):
        runs.queue()


def schema_with_ids(stage):
    """Returns the schema with ids that exist in its paths. With other ids schemathesis would mostly get 404."""
    ids = {**stage.ids, "run_id": stage.runs["claimed"]}
    schema = json.loads(service.document())
    routes = {re.sub(r"<uuid:\w+>", "{}", f"/{route}"): f"/{route}" for _, route in api_routes()}
    schema["paths"] = {
        re.sub(
            r"<uuid:(\w+)>", lambda name: str(ids[name[1]]), routes[re.sub(r"{\w+}", "{}", path)]
        ): item
        for path, item in schema["paths"].items()
    }
    for item in schema["paths"].values():
        for operation in item.values():
            parameters = operation.get("parameters", [])
            operation["parameters"] = [each for each in parameters if each["in"] != "path"]
            for body in operation.get("requestBody", {}).get("content", {}).values():
                example = body.get("example")
                if (wide := widened(example, body["schema"], schema)) != example:
                    body["examples"] = {"wide": {"value": wide}}
    return schema


def widened(value, schema, document):
    """Returns an example with two items in each of its lists: with the least and with the largest numbers that the
    schema allows.

    schemathesis tries each bound alone, and random values too seldom: a call that took memory for all numbers between
    two of its own was not found.
    """
    schema = in_full(schema, document)
    if isinstance(value, list) and value:
        items = schema.get("items", {})
        return [numbered(value[0], items, bound, document) for bound in ("minimum", "maximum")]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    return {name: widened(each, fields.get(name, {}), document) for name, each in value.items()}


def numbered(value, schema, bound, document):
    """Returns an example with this bound of the schema, `minimum` or `maximum`, in place of each number."""
    schema = in_full(schema, document)
    if isinstance(value, dict):
        fields = schema.get("properties", {})
        return {
            name: numbered(each, fields.get(name, {}), bound, document)
            for name, each in value.items()
        }
    return schema.get(bound, value)


def in_full(schema, document):
    """Returns the component to which a schema refers, or the schema itself."""
    return document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], schema)


def configuration(headers):
    """Configures the caller's credentials, and the phases of the search."""
    lines = [
        "[headers]",
        *(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in headers.items()),
        "[generation]",
        "with-security-parameters = false",  # Else a made-up token is sent and decides.
        "[phases.coverage]",
        # No operation has this method, and one such method shows of each path what six others would.
        'unexpected-methods = ["PUT"]',
    ]
    return "\n".join(lines)

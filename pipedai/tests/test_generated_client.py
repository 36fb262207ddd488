"""Typed clients in Python and TypeScript, generated as docs/clients.md says, do the product's main job."""

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipedai.api import service
from pipedai.env import BASE_DIR
from testing.processes.npm import npm_ci
from testing.processes.programs import program
from testing.world.users import PASSWORD

# The client of the whole schema takes long to generate.
pytestmark = [pytest.mark.long, pytest.mark.timeout(800)]

NAME = "pipedai_client_under_test"
TYPESCRIPT = BASE_DIR / "testing" / "processes" / "typescript_client"


@pytest.fixture(scope="module")
def schema_file(tmp_path_factory) -> Path:
    file: Path = tmp_path_factory.mktemp("schema") / "openapi.json"
    file.write_bytes(service.document())
    return file


@pytest.fixture(scope="module")
def client_package(tmp_path_factory, schema_file) -> Iterator[ModuleType]:
    """Generates the client as docs/clients.md describes, and imports it."""
    directory: Path = tmp_path_factory.mktemp("client")
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [
            scripts / "openapi-python-client", "generate", "--path", schema_file,
            "--meta", "none", "--output-path", directory / NAME, "--fail-on-warning",
        ],
        # The generator formats its files with the ruff that it finds on PATH.
        env={**os.environ, "PATH": os.pathsep.join([str(scripts), os.environ["PATH"]])},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(directory))
    try:
        yield importlib.import_module(NAME)
    finally:
        sys.path.remove(str(directory))


class Calls:
    """Calls the package's functions. Each call checks the status and returns the parsed answer."""

    def __init__(self, package: ModuleType, url: str, opened: ExitStack) -> None:
        self._package = package
        self._url = url
        self._opened = opened
        self.models: Any = importlib.import_module(f"{NAME}.models")

    def __call__(
        self, client: Any, expected: int, tag: str, function: str, /, *args: Any, **kwargs: Any
    ) -> Any:
        module = importlib.import_module(f"{NAME}.api.{tag}.{function}")
        answer = module.sync_detailed(*args, client=client, **kwargs)
        assert answer.status_code == expected, (function, answer.content)
        return answer.parsed

    def bearer(self, token: str) -> Any:
        """Returns a client with a token."""
        return self._open(self._package.AuthenticatedClient(self._url, token=token))

    def browser(self) -> Any:
        """Returns a client that keeps its cookie."""
        return self._open(self._package.Client(self._url))

    def _open(self, client: Any) -> Any:
        return self._opened.enter_context(client)


@pytest.fixture
def call(client_package, server) -> Iterator[Calls]:
    """Returns the package's functions for the served API."""
    with ExitStack() as opened:
        yield Calls(client_package, server.api, opened)


def test_a_generated_client_does_the_main_job(call):
    """Register, workspace, environment, key, worker, trigger, run, and the worker's calls to its end."""
    models = call.models
    person = call.browser()
    body = models.RegisterBody(email="ada@example.com", password=PASSWORD, name="Ada")
    registered = call(person, 201, "accounts", "register", body=body)
    assert registered.user.email == "ada@example.com"
    workspace = call(
        person, 201, "workspaces", "create_workspace",
        body=models.CreateWorkspaceBody(name="Acme"),
    )  # fmt: skip
    environment = call(
        person, 201, "environments", "create_environment", workspace.id,
        body=models.CreateEnvironmentBody(name="production"),
    )  # fmt: skip
    assert environment.role is models.Role.OWNER
    key, registration = (
        call(
            person, 201, "api_keys", "create_api_key", environment.id,
            body=models.CreateApiKeyBody(name=prefix, prefix=models.KeyPrefix(prefix), **role),
        )
        for prefix, role in (("pwk", {"role": models.KeyRole.ADMIN}), ("wrk", {}))
    )  # fmt: skip
    script = call.bearer(key.token)
    machine = call(
        call.bearer(registration.token), 201, "worker_protocol", "register_worker",
        body=models.RegisterWorkerBody(hostname="build-1", os="linux", version="1.0"),
    )  # fmt: skip
    headers = models.McpHeaders.from_dict({"x-api-key": "a-secret"})
    trigger = call(
        script, 201, "triggers", "create_trigger", environment.id,
        body=models.CreateTriggerBody(
            name="Morning report", prompt="Work.", mcp_url="https://mcp.example/",
            mcp_headers=headers, worker_id=machine.worker_id,
            record_events=models.RecordEvents.ALWAYS,
        ),
    )  # fmt: skip
    assert trigger.has_mcp_headers
    assert trigger.last_run is None
    order = {"body": models.RunTriggerBody(payload={"day": "monday"}), "idempotency_key": "once"}
    run = call(script, 201, "triggers", "run_trigger", trigger.id, **order)
    assert call(script, 200, "triggers", "run_trigger", trigger.id, **order).id == run.id

    worker = call.bearer(machine.worker_token)
    polled = call(worker, 200, "worker_protocol", "poll_runs", machine.worker_id, wait=5)
    assert [(given.id, given.payload) for given in polled.runs] == [(run.id, {"day": "monday"})]
    assert polled.runs[0].mcp_headers.to_dict() == {"x-api-key": "a-secret"}
    place = (machine.worker_id, run.id)
    for function, body in (
        ("claim_run", models.ClaimRunBody(claim_id="1")),
        ("start_run", models.StartRunBody()),
        ("heartbeat_run", models.HeartbeatRunBody()),
        ("send_run_events", models.SendRunEventsBody(events=[])),
        ("complete_run", models.CompleteRunBody(status=models.Outcome.SUCCEEDED, cost_usd="0.012")),
    ):
        call(worker, 200, "worker_protocol", function, *place, body=body)
    refused = call(worker, 409, "worker_protocol", "start_run", *place, body=models.StartRunBody())
    assert refused.status is models.RunStatus.SUCCEEDED
    assert refused.code is models.ErrorCode.RUN_STATE
    body = models.CreateWorkspaceBody(name="")
    invalid = call(person, 400, "workspaces", "create_workspace", body=body)
    assert invalid.code is models.ErrorCode.VALIDATION_FAILED

    ended = call(script, 200, "runs", "get_run", run.id)
    assert (ended.status, ended.cost_usd) == (models.RunStatus.SUCCEEDED, "0.012")
    page = call(
        script,
        200,
        "runs",
        "list_runs",
        environment.id,
        status=[models.ListRunsStatusItem.SUCCEEDED],
    )
    assert [item.id for item in page.items] == [run.id]


def test_a_change_sends_only_what_is_given(client_package):
    """A field that was left out must stay as it is, and not become its default."""
    models: Any = importlib.import_module(f"{NAME}.models")
    assert models.UpdateTriggerBody(enabled=False).to_dict() == {"enabled": False}


def test_a_typescript_client_compiles_strictly_and_does_the_main_job(server, schema_file, tmp_path):
    programs = npm_ci(TYPESCRIPT, tmp_path) / ".bin"
    for name in ("main_job.ts", "tsconfig.json"):
        shutil.copy(TYPESCRIPT / name, tmp_path)
    for command in (
        [str(programs / "openapi-typescript"), str(schema_file), "-o", "pipedai.ts"],
        [str(programs / "tsc"), "--project", "."],
        [str(program("node")), "built/main_job.js", server.api, PASSWORD],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr

"""A run outlives the tokens of its connection, and none runs without its tools when nobody has signed in."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from testing.processes.grant_server import GrantServer, grant_server
from testing.processes.scheduler_process import scheduling
from testing.processes.socket_relay import passed_on
from testing.processes.worker_process import until

from .conftest import Machines
from .network import LoopbackNetwork
from .site import LOOPBACK
from .steps import Step, mcp, say
from .working import Machine, Started

pytestmark = pytest.mark.long

LIFE_SECONDS = 20
# Three of these last longer than two tokens.
NAP_SECONDS = 14


@pytest.fixture
def grants(network: LoopbackNetwork, tmp_path: Path) -> Iterator[GrantServer]:
    """Run an authorization server, and the MCP server behind it, at the same address inside the network and outside."""
    inside, outside = _listeners(network)
    address = outside.getsockname()
    with (
        inside,
        outside,
        grant_server(tmp_path, listener=outside, life=LIFE_SECONDS) as server,
        passed_on(inside, lambda: socket.create_connection(address)),
    ):
        yield server


def _listeners(network: LoopbackNetwork) -> tuple[socket.socket, socket.socket]:
    while True:
        inside = network.listener()
        # The port that is free inside may be taken outside.
        with suppress(OSError):
            return inside, socket.create_server(inside.getsockname())
        inside.close()


@dataclass(frozen=True)
class Connected:
    """A connection to the grants' MCP server, as the place of a run's tools."""

    machine: Machine
    grants: GrantServer
    id: str = field(default="")
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.grants.url

    @classmethod
    def make(cls, machine: Machine, grants: GrantServer) -> Connected:
        site = machine.around.site
        values = {"name": "Tools", "mcpUrl": grants.url, "grant": "authorization_code"}
        made = site.post(f"{site.environment}/connections", values)
        return cls(machine, grants, str(made["id"]))

    def sign_in(self) -> None:
        self.machine.around.site.sign_in(self.id, self.grants.agree)

    def status(self) -> str:
        return str(self.machine.around.site.get(f"/connections/{self.id}")["status"])

    def start(self, *steps: Step) -> Started:
        return self.machine.start(*steps, place=self, connectionId=self.id)  # type: ignore[arg-type]

    def outcomes(self, started: Started) -> list[str]:
        calls = self.machine.around.site.get(f"/runs/{started.id}/tool-calls")["items"]
        return [call["outcome"] for call in calls]

    def used(self) -> set[str]:
        """Return the tokens with which tools were called."""
        return {
            request["authorization"]
            for request in self.grants.requests("/mcp")
            if request["status"] == 200 and "tools/call" in str(request.get("body"))
        }


def test_a_run_outlives_its_tokens_and_runs_wait_for_a_login_that_lets_them_go(
    own_machine: Machines, grants: GrantServer, real_directory: Path, tmp_path: Path
) -> None:
    machine = own_machine(slots=2)
    site, log = machine.around.site, real_directory / "scheduler.log"
    with (
        scheduling(site.database, log=log, WEBHOOK_ALLOWED_NETWORKS=LOOPBACK),
        machine.working(),
    ):
        connected = Connected.make(machine, grants)
        connected.sign_in()
        naps = [step for _ in range(3) for step in (_write(), mcp("nap", seconds=NAP_SECONDS))]
        long = connected.start(*naps, _write(), say("Finished."))
        assert long.ended(240)["status"] == "succeeded"
        assert connected.outcomes(long) == ["ok"] * 7
        assert len(connected.used()) >= 3
        assert len(grants.asked("refresh_token")) >= 2

        # It is night: the grant is revoked, and nobody is there to sign in.
        grants.control(revoke="all")
        first = connected.start(_write(), say("Finished."))
        until(lambda: connected.status() == "needs_login", seconds=120)
        second = connected.start(_write(), say("Finished."))
        told = site.get(f"/runs/{second.id}/explain")
        assert [reason["code"] for reason in told["waitingFor"]] == ["connection_not_ready"]
        assert "authorize" in told["waitingFor"][0]["remedy"]
        shown = first.shown()
        # It began with a token that the server did not know any more, or it waits too.
        assert (shown["status"], shown["faultClass"]) in (("failed", "infra"), ("queued", None))

        connected.sign_in()
        assert second.ended()["status"] == "succeeded"
        assert connected.outcomes(second) == ["ok"]
    secrets = _secrets(grants)
    assert len(secrets) >= 8
    assert machine.around.messages.leaked(*secrets) == []
    for directory in (machine.directory, real_directory):
        for path in directory.rglob("*"):
            if path.is_file():
                text = path.read_text(errors="replace")
                assert [secret for secret in secrets if secret in text] == [], path


def _write() -> Step:
    return mcp("write", text="again")


def _secrets(grants: GrantServer) -> list[str]:
    """Return all tokens that the server has seen."""
    seen = [json.loads(line) for line in grants.log.read_text().splitlines()]
    access = {each["authorization"].split()[-1] for each in seen if each["authorization"]}
    refresh = {each["form"].get("refresh_token") for each in seen if "form" in each} - {None}
    return [*access, *refresh]

"""A run whose MCP server can't be used fails before a token is spent, with one sentence and the right fault class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from .conftest import Machines
from .mcp_server import Place
from .network import LoopbackNetwork
from .steps import say
from .working import Machine, Started, Surroundings

pytestmark = pytest.mark.long

# How each run ends whose server behaves so, by the modes of `mcp_modes.py`.
INFRA_MODES = ("status-503", "status-500", "status-429", "status-408", "reset")
CLIENT_MODES: tuple[str, ...] = (
    "status-401",
    "status-403",
    "status-404",
    "status-302",
    "html",
    "words",
)
CLIENT_MODES += ("version-1999-01-01", "crowded")
FLOODING_MODES = ("endless-sse", "endless-json", "bomb")
# The worker waits 30 s for these.
SLOW_MODES = ("stall", "delay-60", "slowtools-60")
SLOTS = 12


@pytest.fixture
def busy(machine_of: Machines) -> Machine:
    """A machine for these tests alone, on which all runs of a test can be executed at once."""
    return machine_of(slots=SLOTS)


def start_at(machine: Machine, place: Place, **trigger: Any) -> Started:
    """Start a run that would succeed if the worker let it begin without its server."""
    return machine.start(say("I had no tools, and said so."), place=place, **trigger)


def verdicts(started: Mapping[str, Started], machine: Machine) -> dict[str, str]:
    """Wait for the runs' ends, look at what holds for each, and return the fault class of each."""
    found = {}
    for name, each in started.items():
        run = each.ended(seconds=120)
        assert run["status"] == "failed", name
        assert re.fullmatch(r"[A-Z].* MCP server.*\.", run["errorMessage"]), name
        assert each.script.requests == [], name
        assert each.place.secret not in str(run), name
        found[name] = run["faultClass"]
    assert list(machine.temporary.iterdir()) == []
    return found


def test_the_fault_is_the_clients_if_the_server_would_answer_the_same_again(
    around: Surroundings, busy: Machine
) -> None:
    started = {mode: start_at(busy, around.mcp.place(mode)) for mode in CLIENT_MODES}
    wrong = around.mcp.place()
    headers = {"Authorization": "Bearer another-one-12345"}
    started["wrong header"] = start_at(busy, wrong, mcpHeaders=headers)
    started["deprecated transport"] = deprecated = start_at(busy, around.mcp.place(sse=True))
    assert verdicts(started, busy) == dict.fromkeys(started, "client")
    assert "deprecated HTTP+SSE transport" in deprecated.ended()["errorMessage"]


def test_the_fault_is_of_the_infrastructure_if_the_server_may_do_better_later(
    around: Surroundings, busy: Machine, network: LoopbackNetwork
) -> None:
    with network.listener() as listener:
        closed = listener.getsockname()[1]
    started = {mode: start_at(busy, around.mcp.place(mode)) for mode in INFRA_MODES}
    for name in (f"127.0.0.1:{closed}", "no-such-host.example"):
        place = around.mcp.place()
        started[name] = start_at(busy, place, mcpUrl=f"http://{name}/mcp")
    assert verdicts(started, busy) == dict.fromkeys(started, "infra")
    assert set(network.strangers()) == {"DNS for no-such-host.example"}


def test_a_flood_is_cut_off_and_costs_the_worker_little_memory(
    around: Surroundings, own_machine: Machines
) -> None:
    machine = own_machine()
    with machine.working() as process:
        started = {mode: start_at(machine, around.mcp.place(mode)) for mode in FLOODING_MODES}
        found = verdicts(started, machine)
        assert set(found.values()) <= {"client", "infra"}
        assert peak_mebibytes(process.pid) < 300


def test_a_server_that_takes_too_long_is_waited_for_half_a_minute(
    around: Surroundings, busy: Machine
) -> None:
    started = {mode: start_at(busy, around.mcp.place(mode)) for mode in SLOW_MODES}
    assert verdicts(started, busy) == dict.fromkeys(started, "infra")


def peak_mebibytes(pid: int) -> float:
    """Return the most memory that a process has held so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(peak) / 1024

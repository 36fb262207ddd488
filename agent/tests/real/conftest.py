"""Starts what all scenarios with the real CLI share, once in each process of the suite, and watches each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bin import claude
from pytest_django.plugin import DjangoDbBlocker
from testing.probes.leaks import Watch, leaks_in
from testing.probes.planted import planted
from testing.probes.whole_session import dump_of
from testing.world.database_copy import database_copy

from pipedai_worker.conformance.fake_api import FakeApi

from . import installed
from .lone_machine import LoneMachine, fake_api
from .mcp_server import McpServer, mcp_server
from .messages_api import MessagesApi, messages_api
from .network import LoopbackNetwork, loopback_network
from .scenes import Scene, Scenes
from .site import Site, site
from .steps import Step
from .working import SUBSCRIPTION, Machine, Surroundings

Machines = Callable[..., Machine]


@pytest.fixture(scope="session")
def real_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the directory for the files of everything that the scenarios share."""
    return tmp_path_factory.mktemp("real")


@pytest.fixture(scope="session")
def _programs() -> None:
    """Skip the test before anything is started, if a program is missing."""
    for version in claude.VERSIONS:
        installed.cli(version)


@pytest.fixture(scope="session")
def network() -> Iterator[LoopbackNetwork]:
    """Make the network in which the workers and their CLIs run."""
    with loopback_network() as network:
        yield network


@pytest.fixture(scope="session")
def messages(network: LoopbackNetwork) -> Iterator[MessagesApi]:
    """Serve the Messages API."""
    with messages_api(network.listener()) as api:
        yield api


@pytest.fixture(scope="session")
def mcp(network: LoopbackNetwork, real_directory: Path) -> Iterator[McpServer]:
    """Run the MCP server."""
    with network.listener() as listener, mcp_server(listener, real_directory) as server:
        yield server


@pytest.fixture(scope="session")
def real_site(
    _programs: None,
    network: LoopbackNetwork,
    real_directory: Path,
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Site]:
    """Serve the API on a database of its own, in which no secret may stand readable when all is over."""
    with planted() as known, django_db_blocker.unblock(), database_copy() as database:
        with site(network, database, real_directory) as served:
            yield served
        leaks = leaks_in("dump", dump_of(database), known)
    assert not leaks, "\n".join(leaks)


@pytest.fixture(scope="session")
def around(
    network: LoopbackNetwork, real_site: Site, messages: MessagesApi, mcp: McpServer
) -> Surroundings:
    """Gather what is there for all scenarios."""
    return Surroundings(network, real_site, messages, mcp)


@pytest.fixture(scope="session")
def machine_of(around: Surroundings, real_directory: Path) -> Iterator[Machines]:
    """Return a function that gives the working machine with this version of the CLI, way to pay and number of slots.

    Tests share these machines: so they look at their own runs only, and stop no worker.
    """
    made: dict[tuple[str, str, int], Machine] = {}
    with ExitStack() as stack:

        def machine_of(
            version: str = claude.PINNED, auth_mode: str = SUBSCRIPTION, slots: int = 4
        ) -> Machine:
            wanted = version, auth_mode, slots
            if wanted not in made:
                directory = real_directory / f"{version}-{auth_mode}-{slots}"
                machine = Machine(around, directory, installed.cli(version), auth_mode, slots)
                stack.enter_context(machine.working())
                made[wanted] = machine
            return made[wanted]

        yield machine_of


@pytest.fixture
def machine(machine_of: Machines) -> Machine:
    """The shared machine with the pinned CLI, paid for by a subscription."""
    return machine_of()


@pytest.fixture
def own_machine(around: Surroundings, tmp_path: Path) -> Machines:
    """Return a function that makes a machine for this test alone, whose worker the test starts with `working`."""
    numbers = itertools.count(1)

    def own_machine(version: str = claude.PINNED, **rest: Any) -> Machine:
        directory = tmp_path / f"machine-{next(numbers)}"
        return Machine(around, directory, installed.cli(version), **rest)

    return own_machine


@pytest.fixture(autouse=True)
def _nothing_leaves_the_network(network: LoopbackNetwork) -> Iterator[None]:
    """Fail the test if the worker or the CLI tried to reach anything but loopback addresses."""
    yield
    assert network.strangers() == []


@pytest.fixture(autouse=True)
def _nothing_is_logged(real_directory: Path, watch: Watch) -> Iterator[None]:
    """Look for the test's secrets in what the shared processes logged."""
    yield
    for path in (*real_directory.glob("*.log"), *real_directory.glob("*/*.log")):
        watch.look_at(str(path), path.read_text(errors="replace"))


@pytest.fixture(autouse=True)
def _every_request_has_a_script(messages: MessagesApi) -> Iterator[None]:
    """Fail the test if a run asked the Messages API for something that belongs to no script."""
    before = len(messages.unexpected)
    yield
    assert [request.content.get("model") for request in messages.unexpected[before:]] == []


@pytest.fixture
def api_at(_programs: None, network: LoopbackNetwork) -> Iterator[tuple[FakeApi, str]]:
    with fake_api(network) as served:
        yield served


@pytest.fixture
def another_api_at(_programs: None, network: LoopbackNetwork) -> Iterator[tuple[FakeApi, str]]:
    with fake_api(network) as served:
        yield served


@pytest.fixture
def scene(
    api_at: tuple[FakeApi, str],
    network: LoopbackNetwork,
    messages: MessagesApi,
    mcp: McpServer,
    tmp_path: Path,
) -> Scenes:
    def scene(*steps: Step) -> Scene:
        machine = LoneMachine(network, messages, tmp_path, installed.cli(), *api_at)
        return Scene(machine, api_at[0], mcp.place(), messages.script(*steps))

    return scene


@pytest.fixture(scope="module")
def shared_scene(
    _programs: None,
    network: LoopbackNetwork,
    messages: MessagesApi,
    mcp: McpServer,
    real_directory: Path,
) -> Iterator[Scenes]:
    """Return a function that gives a scene on the working machine with this version of the CLI, which tests share."""
    machines: dict[str, tuple[LoneMachine, FakeApi]] = {}
    with ExitStack() as stack:

        def shared_scene(*steps: Step, version: str) -> Scene:
            if version not in machines:
                api, url = stack.enter_context(fake_api(network))
                directory = real_directory / f"resuming-{version}"
                cli = installed.cli(version)
                machine = LoneMachine(network, messages, directory, cli, api, url)
                stack.enter_context(machine.working())
                machines[version] = machine, api
            return Scene(*machines[version], mcp.place(), messages.script(*steps))

        yield shared_scene

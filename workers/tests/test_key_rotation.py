"""No secret is lost when rotations of keys are killed at random points while clients poll and patch."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from uuid import UUID

import httpx
import pytest
from django.core.management import call_command
from django.test import override_settings

from audit.models import AuditEntry
from pipedai.env import BASE_DIR
from pipedai.sql import database_now
from testing.processes.web_process import Server, serve, url_of
from testing.world.cast import TEST_ACTOR, Cast, make_cast
from testing.world.runs import Runs
from testing.world.sealed import master_key
from triggers.runs.handout import MOST_AT_ONCE
from triggers.services import TRIGGERS
from workers.registration import Registered
from workspaces.encryption.check import check_keys
from workspaces.models import DataKey, DataKeyRotation

HOW_MANY = 105  # more than one batch of a rotation
KILLS = 3
# The first master key wraps everything at first. Each round adds the next one, and the last one stays.
MASTERS = [f"m{number}" for number in range(KILLS + 1)]
# Each client pauses for so long between two calls. All are calling while each rotation is at work.
PAUSE_SECONDS = 0.05
# Each kind of rotation has about so many statements, and it is killed at a random one.
STATEMENTS = {"--data": 60, "--master": 16}


@dataclass
class Tenant:
    """The clients of one environment, and the number of the newest headers that they wrote for each trigger."""

    api: httpx.Client
    worker_api: httpx.Client
    worker: Registered
    triggers: list[UUID]
    sent: Counter[UUID] = field(default_factory=Counter)
    answered: Counter[UUID] = field(default_factory=Counter)
    polls: int = 0
    patches: int = 0

    def reach(self, server: Server) -> None:
        """Makes the clients call this server from now on."""
        self.api.base_url = self.worker_api.base_url = httpx.URL(server.api)

    def close(self) -> None:
        """Closes the clients' connections."""
        self.api.close()
        self.worker_api.close()

    def patch(self) -> None:
        """Writes both secrets of a random trigger."""
        trigger_id = random.choice(self.triggers)
        self.sent[trigger_id] += 1
        number = self.sent[trigger_id]
        body = {
            "mcpHeaders": headers(trigger_id, number),
            "webhookSecret": secret(trigger_id, number),
        }
        self.api.patch(f"/triggers/{trigger_id}", json=body).raise_for_status()
        self.answered[trigger_id] = number
        self.patches += 1

    def poll(self) -> None:
        """Polls, and checks that as many runs come as possible, with headers no older than those confirmed before."""
        before = Counter(self.answered)
        answer = self.worker_api.get(f"/workers/{self.worker.worker_id}/poll")
        runs = answer.raise_for_status().json()["runs"]
        assert {UUID(run["triggerId"]) for run in runs} <= set(self.triggers)
        assert len(runs) == min(len(self.triggers), MOST_AT_ONCE)
        for run in runs:
            trigger_id = UUID(run["triggerId"])
            number = int(run["mcpHeaders"]["x-number"])
            assert run["mcpHeaders"] == headers(trigger_id, number)
            assert before[trigger_id] <= number <= self.sent[trigger_id]
        self.polls += 1


def headers(trigger_id: UUID, number: int) -> dict[str, str]:
    return {"x-secret": f"planted-{trigger_id}", "x-number": str(number)}


def secret(trigger_id: UUID, number: int) -> str:
    return f"planted-{trigger_id}-{number}"


def tenant(cast: Cast, triggers: int) -> Tenant:
    """Makes an environment whose worker has a queued run of each trigger."""
    worker = cast.register("busy", max_concurrency=triggers)
    made = Tenant(client(cast.mint("pwk", role="admin")), client(worker.worker_token), worker, [])
    for _ in range(triggers):
        trigger_id = cast.add_trigger(worker_id=worker.worker_id)
        values = {"mcp_headers": headers(trigger_id, 0), "webhook_secret": secret(trigger_id, 0)}
        TRIGGERS.update(trigger_id, values=values, actor=TEST_ACTOR)
        Runs(cast, trigger_id, now=database_now()).queue()
        made.triggers.append(trigger_id)
    return made


def client(token: str) -> httpx.Client:
    """Returns a client with this token, as a script or a worker would use it."""
    bearer = {"Authorization": f"Bearer {token}"}
    return httpx.Client(headers=bearer, trust_env=False, timeout=30)


class Clients:
    """Runs threads that make calls until they are stopped. An error in one of them is raised at the end."""

    def __init__(self, *calls: Callable[[], None]) -> None:
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(call,)) for call in calls]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, call: Callable[[], None]) -> None:
        try:
            while not self._stop.wait(PAUSE_SECONDS):
                call()
        except BaseException as error:
            self._errors.append(error)


def keys(masters: list[str]) -> list[str]:
    return [master_key(each) for each in masters]


@pytest.fixture
def killing(own_database: str) -> Iterator["subprocess.Popen[str]"]:
    """Starts the process that carries out and kills rotations."""
    process = subprocess.Popen(
        [sys.executable, "-m", "testing.processes.killed_command"],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "DATABASE_URL": url_of(own_database),
            "DJANGO_SETTINGS_MODULE": "pipedai.settings",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process


def killed_rotations(killing: "subprocess.Popen[str]", masters: list[str]) -> int:
    """Runs both kinds of rotation at once, kills each at a random point, and returns how many were killed."""
    commands = [
        (
            *(keys(masters), random.randint(1, statements), random.choice(["before", "after"])),
            *("rotate_keys", kind),
        )
        for kind, statements in STATEMENTS.items()
    ]
    assert killing.stdin is not None
    assert killing.stdout is not None
    print(json.dumps(commands), file=killing.stdin, flush=True)
    ended = json.loads(killing.stdout.readline())
    for code, said in ended:
        assert "planted" not in said
        # A rotation may complain if the other kind was killed while keys were wrapped under an older master key.
        assert code in (0, -signal.SIGKILL) or "older master key" in said, said
    return sum(code == -signal.SIGKILL for code, _ in ended)


def finish(masters: list[str]) -> None:
    for kind in STATEMENTS:
        said = io.StringIO()
        with override_settings(MASTER_KEYS=keys(masters)):
            call_command("rotate_keys", kind, stdout=said)
        assert "Everything opens" in said.getvalue()


def look_into(log: Path) -> None:
    text = log.read_text()
    for bad in ("cannot_open", "planted", "Traceback", "deadlock"):
        assert bad not in text


def audited_replacements() -> dict[UUID, list[list[str]]]:
    """Returns, for each environment, the old and the new data key of each replacement, in order."""
    found: dict[UUID, list[list[str]]] = {}
    for entry in AuditEntry.objects.filter(action="data-key.rotated").order_by("created_at", "id"):
        assert entry.environment_id is not None
        found.setdefault(entry.environment_id, []).append(entry.metadata["dataKeyId"])
    return found


@pytest.fixture
def tenants(own_database: str) -> Iterator[list[Tenant]]:
    """Makes one tenant with many triggers and one with few. The oldest master key wraps all their data keys."""
    with override_settings(MASTER_KEYS=keys(MASTERS[:1])):
        cast = make_cast()
        strange = replace(cast, environment=cast.strange_environment, owner=cast.stranger)
        made = [tenant(cast, HOW_MANY), tenant(strange, 5)]
    yield made
    for each in made:
        each.close()


@pytest.mark.long
@pytest.mark.timeout(800)
def test_every_value_opens_after_killed_rotations_with_the_old_keys_removed(
    own_database: str, tenants: list[Tenant], killing: "subprocess.Popen[str]", tmp_path: Path
):
    first = {key.environment_id: str(key.id) for key in DataKey.objects.all()}

    known, kills = [*reversed(MASTERS)], 0
    log = tmp_path / "1.log"
    with serve(own_database, log=log, MASTER_KEYS=",".join(keys(known))) as server:
        for each in tenants:
            each.reach(server)
        with Clients(*(call for each in tenants for call in (each.poll, each.patch))):
            # On a busy machine the clients get few turns, so it may take more kills until each has made its calls.
            while kills < KILLS or min(min(each.polls, each.patches) for each in tenants) <= 10:
                newest = MASTERS[1 + kills % (len(MASTERS) - 1)]
                others = [each for each in known if each != newest]
                kills += killed_rotations(killing, [newest, *others])
            finish(known)
    look_into(log)
    for each in tenants:
        assert min(each.polls, each.patches) > 10

    last = known[:1]
    log = tmp_path / "2.log"
    with serve(own_database, log=log, MASTER_KEYS=",".join(keys(last))) as server:
        for each in tenants:
            each.reach(server)
            each.poll()
            each.patch()
            each.poll()
            assert each.sent == each.answered
    look_into(log)
    with override_settings(MASTER_KEYS=keys(last)):
        report = check_keys()
        assert report.under_master == {last[0]: 2}
    assert (report.broken, report.values.total()) == ([], 2 * (HOW_MANY + 5))
    assert [key.retired for key in report.data_keys] == [False, False]
    assert not DataKeyRotation.objects.exists()
    # Each replacement of a data key has one audit row, and the rows of an environment form a chain.
    for key in report.data_keys:
        replaced = audited_replacements()[key.environment_id]
        olds, news = zip(*replaced, strict=True)
        assert olds == (first[key.environment_id], *news[:-1])
        assert news[-1] == str(key.id)

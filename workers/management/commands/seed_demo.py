"""`manage.py seed_demo`: makes the demo of bin/run, with a week of made-up runs that go through all real steps."""

import platform
import secrets
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import connection, transaction
from django.db.models import QuerySet

from accounts.emails import Email
from accounts.models import User
from accounts.passwords import hash_password, is_password_of
from accounts.services import create_staff, create_user
from accounts.sessions import end_sessions
from pipedai.api import tokens
from pipedai.api.renderers import iso_time
from pipedai.api.serializers import validated
from pipedai.events import SYSTEM, Actor, Event, emit
from pipedai.ids import new_id
from pipedai.management.operator_command import OperatorCommand
from pipedai.sql import database_now
from pipedai_worker import __version__ as worker_version
from pipedai_worker.disk import durable
from pipedai_worker.identity import ConfigError, WorkerConfig
from triggers.budgets.services import BUDGETS
from triggers.budgets.views import BudgetBody
from triggers.models import Budget, Tick, Trigger
from triggers.run_events.recording import make_event, store_events
from triggers.runs.conditions import limits_of
from triggers.runs.lifecycle import claim_run
from triggers.runs.queueing import queue_run, queue_scheduled_runs
from triggers.runs.reports import complete_run
from triggers.schedules.cron import Schedule
from triggers.serializers import TriggerBody
from triggers.services import TRIGGERS
from triggers.states import Decision, Source
from workers.models import Pool, Worker
from workers.pools.services import POOLS, add_worker
from workers.protocol.serializers import CompleteBody, RegisterBody, outcome_of
from workers.registration import Registered, register_worker
from workspaces.api_keys import mint_api_key
from workspaces.models import ApiKey, Environment
from workspaces.services import create_environment, create_workspace

EMAIL = Email("demo@pipedai.local")
STAFF_EMAIL = Email("staff@pipedai.local")
WORKSPACE = "Demo"
ENVIRONMENT = "demo"
HOSTNAME = "demo"
TRIGGER = {
    "name": "Greeting",
    "description": "Made by seed_demo.",
    "prompt": "Ask the tool local_time what time it is, and greet whoever has just started PipedAI"
    " in one friendly sentence that fits the time of day.",
    "mcpUrl": "https://mcp.example.com/mcp",
    "mcpHeaders": {"Authorization": "Bearer not-a-real-token"},
    "outputSchema": {
        "type": "object",
        "properties": {"greeting": {"type": "string"}},
        "required": ["greeting"],
    },
    "timeoutSeconds": 120,
    # The demo records the events of successful runs too, so that the page of each run shows some.
    "recordEvents": "always",
}
POOL = "Demo pool"
# No program runs as this worker. So the demo shows what waits for a machine that is off, and how its pool continues.
SPARE_HOSTNAME = "demo-spare"
POOL_TRIGGER = {
    **TRIGGER,
    "name": "Greeting from any machine",
    "description": "Made by seed_demo. Any machine of the pool may take its runs.",
}
BUDGET = {"name": "Demo", "period": "month", "limitUsd": "20", "whenReached": "hold"}
# The number of the PostgreSQL advisory lock by which two seed_demo commands take turns. No other code uses this number.
_LOCK = 0x5EED
# The triggers of the week: one is well, one fails, and one waits for a machine that is offline.
HEALTHY: Final[dict[str, Any]] = {
    "name": "Morning report",
    "description": "Made by seed_demo.",
    "prompt": "Sum up what happened overnight: orders, complaints, and whatever needs an answer today.",
    "schedule": "0 6 * * *",
    "timezone": "Europe/Berlin",
}
FAILING: Final[dict[str, Any]] = {
    **HEALTHY,
    "name": "Review pull requests",
    "prompt": "Review each open pull request, and say what keeps it from being merged.",
    "schedule": "0 9,17 * * *",
    "alertAfterFailures": 2,
}
STRANDED: Final[dict[str, Any]] = {
    **HEALTHY,
    "name": "Check the backups",
    "prompt": "Look whether every backup of the last day is there and can be read.",
    "schedule": "0 22 * * *",
}
SPENT_USD: Final = 10
_SPAN = timedelta(days=7)
# The made-up runs end this long before the demo begins.
_QUIET = timedelta(minutes=10)
_SAID: Final = {
    "Morning report": "Two orders are late, and one customer asked for a call. The rest is as usual.",
    "Review pull requests": "Reviewed three pull requests: two are fine, one lacks a test.",
    "Check the backups": "All four backups are there, and the newest is from an hour ago.",
}
_REFUSED: Final[dict[str, Any]] = {
    "status": "failed",
    "exitCode": 1,
    "shortMessage": "The MCP server refused the token.",
    "errorMessage": "tools/list answered 401 Unauthorized: the token has expired.",
}
# The events of a failed run, as seconds before its end, types and texts.
_TOLD: Final = (
    (15, "status", "Connecting to the MCP server."),
    (13, "status", _REFUSED["errorMessage"]),
    (
        4,
        "message",
        "Without the tools of the MCP server I can't read the pull requests, so I stop.",
    ),
)


class Command(OperatorCommand):
    help = (
        "Make a demo user, a staff user, a workspace, environment, API key, worker and trigger, a pool of two workers"
        " with a trigger of its own, a budget, and a week of runs. What is there already is kept. The user's password"
        " and the key are written to demo.json in PIPEDAI_DATA_DIR, the worker's registration to demo-worker.json; only"
        " their owner can read them. Refused in production."
    )
    examples = """examples:
  manage.py seed_demo
  manage.py seed_demo --mcp-url http://127.0.0.1:9000/mcp
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--mcp-url", metavar="URL", help="the MCP server of the demo's trigger, from now on"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.PRODUCTION:
            raise CommandError("There is no demo in production.")
        seed = Seed(settings.DATA_DIR, options["mcp_url"])
        seed.sow()
        made = ", ".join(seed.made) or "nothing, since all was there"
        self.stdout.write(f"Made: {made}. Log in as {EMAIL}; the password is in {seed.file}.")


class Seed:
    """Makes the missing parts of the demo. `mcp_url`, unless None, is the URL of its trigger."""

    def __init__(self, data_dir: Path, mcp_url: str | None = None) -> None:
        self._server = {} if mcp_url is None else {"mcpUrl": mcp_url}
        self.file = data_dir / "demo.json"
        self.worker_file = data_dir / "demo-worker.json"
        self.made: list[str] = []
        self._kept: dict[str, Any] = {}
        self._user: User
        self._environment: Environment
        # The arguments that every service gets which makes something in the environment.
        self._of_it: dict[str, Any] = {}

    def sow(self, *, now: datetime | None = None) -> None:
        """Makes the missing parts of the demo in one transaction, and its two files. The week of runs ends `now`. A
        lock makes a second command wait, and then find everything there. If the transaction fails after the files were
        written, the next command corrects them.
        """
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            self._kept = _read(self.file)
            self._user, password = self._account("user", create_user, EMAIL, "Demo", "password")
            _, staff_password = self._account(
                "staff user", create_staff, STAFF_EMAIL, "Demo staff", "staffPassword"
            )
            self._environment = self._find_environment()
            self._of_it = {"environment_id": self._environment.id, "actor": SYSTEM}
            api_key = self._api_key()
            worker_id, registration = self._worker()
            trigger_id = self._trigger("trigger", TRIGGER, worker_id=worker_id)
            pool_id = self._pool(worker_id)
            self._trigger("pool's trigger", POOL_TRIGGER, pool_id=pool_id)
            self._budget()
            is_new = "environment" in self.made
            if is_new:
                self.made.append("a week of runs")
            else:
                self._move_week()
            if self.made:
                id_, about = self._environment.id, {"made": self.made}
                emit(Event("demo.seeded", SYSTEM, id_, "environment", id_, about))
            if is_new:  # A channel exists by now: the environment's event made it.
                self._week(worker_id, now or database_now())
            registration.save(self.worker_file)
            durable.write_json(
                self.file,
                {
                    "email": EMAIL,
                    "password": password,
                    "staffEmail": STAFF_EMAIL,
                    "staffPassword": staff_password,
                    "environmentId": str(self._environment.id),
                    "triggerId": str(trigger_id),
                    "apiKey": api_key,
                },
            )

    def _account(
        self, what: str, create: Callable[..., User], email: Email, name: str, kept_as: str
    ) -> tuple[User, str]:
        """Returns the user and a working password: the one in the demo's file if it still works, else a new one."""
        kept = str(self._kept.get(kept_as))
        user = User.objects.filter(email=email).first()
        if user is not None and is_password_of(user, kept):
            return user, kept
        password = secrets.token_urlsafe(12)
        if user is None:
            user = create(email=email, password=password, name=name, actor=SYSTEM)
            self.made.append(what)
        else:
            User.objects.filter(id=user.id).update(password=hash_password(password))
            end_sessions(user.id)
            emit(Event("user.password-changed", SYSTEM, None, "user", user.id))
            self.made.append(f"{what}'s password")
        return user, password

    def _find_environment(self) -> Environment:
        environment = Environment.objects.filter(
            workspace__created_by=self._user,
            workspace__name=WORKSPACE,
            name=ENVIRONMENT,
            deleted_at__isnull=True,
        ).first()
        if environment is None:
            by: dict[str, Any] = {"user_id": self._user.id, "actor": SYSTEM}
            workspace = create_workspace(name=WORKSPACE, **by)
            environment = create_environment(workspace_id=workspace.id, name=ENVIRONMENT, **by)
            self.made += ["workspace", "environment"]
        return environment

    def _api_key(self) -> str:
        token = str(self._kept.get("apiKey"))
        live = ApiKey.objects.filter(environment=self._environment, revoked_at__isnull=True)
        if not live.filter(token_digest=tokens.digest(token)).exists():
            _, token = self._mint("pwk")
            self.made.append("API key")
        return token

    def _worker(self) -> tuple[UUID, WorkerConfig]:
        with suppress(ConfigError, Worker.DoesNotExist):
            registration = WorkerConfig.load(self.worker_file)
            digest = tokens.digest(registration.worker_token)
            worker = Worker.objects.get(environment=self._environment, token_digest=digest)
            return worker.id, registration
        registered = self._register(HOSTNAME, "Demo laptop")
        self.made.append("worker")
        return registered.worker_id, WorkerConfig(
            worker_id=str(registered.worker_id),
            worker_token=registered.worker_token,
            api_url=settings.PUBLIC_URL,
            workspace_id=str(registered.workspace_id),
        )

    def _register(self, hostname: str, label: str, **key: Any) -> Registered:
        values = validated(
            RegisterBody,
            {
                "hostname": hostname,
                "label": label,
                "os": f"{platform.system()} {platform.release()}",
                "version": worker_version,
            },
        )
        _, token = self._mint("wrk", **key)
        return register_worker(token=token, values=values, actor=SYSTEM)

    def _pool(self, worker_id: UUID) -> UUID:
        """Returns the id of the pool, in which the demo's worker and a spare one are."""
        live = Pool.objects.filter(environment=self._environment, deleted_at__isnull=True)
        pool = live.filter(name=POOL).first()
        if pool is None:
            values = {"name": POOL, "description": "Made by seed_demo."}
            POOLS.create(**self._of_it, values=values)
            pool = live.get(name=POOL)
            self._register(SPARE_HOSTNAME, "Spare laptop", pool_ids=[pool.id])
            self.made.append("pool")
        add_worker(pool=pool, worker_id=worker_id, actor=SYSTEM)
        return pool.id

    def _trigger(self, what: str, values: dict[str, Any], **runs_on: UUID) -> UUID:
        """Returns the id of the trigger with these values. `runs_on` is its `worker_id` or its `pool_id`."""
        trigger = self._triggers().filter(name=values["name"], **runs_on).first()
        if trigger is not None:
            self._move(what, trigger)
            return trigger.id
        values = validated(TriggerBody, {**values, **self._server})
        self.made.append(what)
        return TRIGGERS.create(**self._of_it, values={**values, **runs_on})

    def _triggers(self) -> QuerySet[Trigger]:
        return Trigger.objects.filter(environment=self._environment, deleted_at__isnull=True)

    def _move(self, what: str, trigger: Trigger) -> None:
        """Gives the trigger another MCP server and its headers, if the command names one. A trigger that has a
        connection, or that files describe, keeps its server, because the user chose it.
        """
        if trigger.connection_id or trigger.managed_by:
            return
        if self._server.get("mcpUrl", trigger.mcp_url) == trigger.mcp_url:
            return
        values = validated(TriggerBody, {**TRIGGER, **self._server})
        values = {name: values[name] for name in ("mcp_url", "mcp_headers")}
        TRIGGERS.update(trigger.id, values=values, actor=SYSTEM)
        self.made.append(f"MCP server of the {what}")

    def _week(self, worker_id: UUID, now: datetime) -> None:
        """Makes the week's triggers and their runs until `now`. The last two runs of the failing one fail. The stranded
        one waits for the spare worker, which has been silent for some hours. The runs cost SPENT_USD in all, so the
        month's cost is at most that, on whichever day the month begins.
        """
        spare = Worker.objects.get(environment=self._environment, hostname=SPARE_HOSTNAME)
        machines = ((HEALTHY, worker_id), (FAILING, worker_id), (STRANDED, spare.id))
        server = {name: TRIGGER[name] for name in ("mcpUrl", "mcpHeaders")}
        ids = [
            self._trigger(values["name"], {**server, **values}, worker_id=machine)
            for values, machine in machines
        ]
        triggers = [Trigger.objects.get(id=id_) for id_ in ids]
        _, failing, stranded = triggers
        runs = [run for trigger in triggers for run in _due(trigger, now)]
        *_, last = (each for each in runs if each.trigger == failing)
        *_, waiting = (each for each in runs if each.trigger == stranded)
        runs = [each._replace(fails=each is last, waits=each is waiting) for each in runs]
        lately = now - timedelta(minutes=2)
        runs.append(_Due(lately, failing, worker_id, scheduled=False, fails=True))
        runs.sort(key=lambda each: each.at)
        weights = {each: 2 + number % 3 for number, each in enumerate(runs) if not each.waits}
        share = SPENT_USD / sum(weights.values())
        for each in runs:
            run_id = _queue(each, self._user.id)
            if not each.waits:
                _execute(each, run_id, weights[each], share)
        begun = now - _SPAN
        Trigger.objects.filter(id__in=ids).update(created_at=begun)
        Worker.objects.filter(id__in=[worker_id, spare.id]).update(created_at=begun)
        Worker.objects.filter(id=spare.id).update(last_seen_at=waiting.at - timedelta(hours=3))

    def _move_week(self) -> None:
        names = [values["name"] for values in (HEALTHY, FAILING, STRANDED)]
        for trigger in self._triggers().filter(name__in=names):
            self._move(trigger.name, trigger)

    def _budget(self) -> None:
        if Budget.objects.filter(environment=self._environment, deleted_at__isnull=True).exists():
            return
        BUDGETS.create(**self._of_it, values=validated(BudgetBody, BUDGET))
        self.made.append("budget")

    def _mint(self, kind: str, **key: Any) -> tuple[ApiKey, str]:
        return mint_api_key(**self._of_it, name="Demo", kind=kind, user_id=self._user.id, **key)


def _read(path: Path) -> dict[str, Any]:
    try:
        return durable.read_json_object(path)
    except (OSError, ValueError):
        return {}


class _Due(NamedTuple):
    """A run of the week. It stays in the queue if its machine is offline by then."""

    at: datetime
    trigger: Trigger
    worker_id: UUID
    scheduled: bool = True
    waits: bool = False
    fails: bool = False


def _due(trigger: Trigger, now: datetime) -> Iterator[_Due]:
    assert trigger.schedule is not None
    assert trigger.worker_id is not None
    schedule = Schedule(trigger.schedule, trigger.timezone)
    at = schedule.next_after(now - _SPAN)
    while at < now - _QUIET:
        yield _Due(at, trigger, trigger.worker_id)
        at = schedule.next_after(at)


def _queue(due: _Due, user_id: UUID) -> UUID:
    environment_id, trigger_id = due.trigger.environment_id, due.trigger.id
    if not due.scheduled:
        user = Actor("user", user_id)
        run = queue_run(trigger_id=trigger_id, source=Source.MANUAL, actor=user, now=due.at)
        return UUID(str(run["id"]))
    run_id = new_id()
    queue_scheduled_runs(
        [{"run_id": run_id, "trigger_id": trigger_id, "tick_at": due.at}], now=due.at
    )
    Tick.objects.create(
        environment_id=environment_id,
        trigger_id=trigger_id,
        tick_at=due.at,
        last_tick_at=due.at,
        decision=Decision.FIRED,
        run_id=run_id,
        decided_at=due.at,
    )
    about = {"tickAt": iso_time(due.at), "triggerId": str(trigger_id)}
    emit(Event("run.scheduled", SYSTEM, environment_id, "run", run_id, about, due.at))
    return run_id


def _execute(due: _Due, run_id: UUID, weight: int, share: float) -> None:
    actor = Actor("worker", due.worker_id)
    claim_run(
        worker_id=due.worker_id,
        run_id=run_id,
        claim_id=run_id.hex,
        start=True,
        actor=actor,
        now=due.at + timedelta(seconds=2),
        **limits_of(max_concurrency=1, disabled=False, limited=False, approved=True),
    )
    ended = due.at + timedelta(seconds=2 + 19 * weight)
    values = validated(CompleteBody, _report(due, weight, share))
    complete_run(
        worker_id=due.worker_id,
        run_id=run_id,
        outcome=outcome_of(values),
        reported={},
        actor=actor,
        now=ended,
    )
    if due.fails:
        events = [
            make_event(
                seq,
                at=iso_time(ended - timedelta(seconds=before)),
                type_=type_,
                text=text,
                data=None,
            )
            for seq, (before, type_, text) in enumerate(_TOLD, start=1)
        ]
        store_events(worker_id=due.worker_id, run_id=run_id, events=events, now=ended)


def _report(due: _Due, weight: int, share: float) -> dict[str, Any]:
    """Returns what the worker reports at the end of the run."""
    used = {
        "model": "claude-sonnet-4-5",
        "inputTokens": 2_100 * weight,
        "outputTokens": 640 * weight,
        "numTurns": weight,
        "costUsd": f"{share * weight:.6f}",
    }
    if due.fails:
        return {**_REFUSED, **used}
    calls = [
        {
            "at": (due.at + timedelta(seconds=7 + 9 * number)).isoformat(),
            "tool": "search" if number else "list",
            "durationMs": 340 + 110 * number,
            "outcome": "ok",
            "effect": "none",
        }
        for number in range(weight)
    ]
    return {
        **used,
        "status": "succeeded",
        "exitCode": 0,
        "shortMessage": _SAID[due.trigger.name],
        "toolCalls": {"total": weight, "effects": 0, "unknown": 0},
        "toolCallList": calls,
    }

"""`manage.py seed_demo`: makes the demo that bin/run shows."""

import platform
import secrets
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.db import connection, transaction

from accounts.emails import Email
from accounts.models import User
from accounts.passwords import hash_password, is_password_of
from accounts.services import create_staff, create_user
from accounts.sessions import end_sessions
from pipedai.api import tokens
from pipedai.api.serializers import validated
from pipedai.events import SYSTEM, Event, emit
from pipedai.management.operator_command import OperatorCommand
from pipedai.sql import database_now
from pipedai_worker import __version__ as worker_version
from pipedai_worker.disk import durable
from pipedai_worker.identity import ConfigError, WorkerConfig
from triggers.budgets.services import BUDGETS
from triggers.budgets.views import BudgetBody
from triggers.models import Budget, Trigger
from triggers.serializers import TriggerBody
from triggers.services import TRIGGERS
from workers.demo.week import FAILING, HEALTHY, STRANDED, live_through
from workers.models import Pool, Worker
from workers.pools.services import POOLS, add_worker
from workers.protocol.serializers import RegisterBody
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
    # Whoever looks at a run of the demo sees what it told, although it succeeded.
    "recordEvents": "always",
}
POOL = "Demo pool"
# No program runs as this worker, so that the demo shows what waits for a machine that is off, and how a pool goes on.
SPARE_HOSTNAME = "demo-spare"
POOL_TRIGGER = {
    **TRIGGER,
    "name": "Greeting from any machine",
    "description": "Made by seed_demo. Any worker of the pool may take its runs.",
}
BUDGET = {"name": "Demo", "period": "month", "limitUsd": "20", "whenReached": "hold"}
# The number of the PostgreSQL advisory lock by which two seed_demo commands take turns. No other code uses this number.
_LOCK = 0x5EED


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
    """Makes what is missing of the demo. `mcp_url`, unless None, is the URL of its trigger."""

    def __init__(self, data_dir: Path, mcp_url: str | None = None) -> None:
        self._server = {} if mcp_url is None else {"mcpUrl": mcp_url}
        self.file = data_dir / "demo.json"
        self.worker_file = data_dir / "demo-worker.json"
        self.made: list[str] = []
        self._kept: dict[str, Any] = {}

    def sow(self, *, now: datetime | None = None) -> None:
        """Makes what is missing in one transaction, and the demo's two files. The week of runs ends `now`. A lock makes
        a second command find them complete. If the transaction fails after that, the next command corrects them.
        """
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            self._kept = _read(self.file)
            user, password = self._user()
            staff_password = self._staff_password()
            environment = self._environment(user)
            api_key = self._api_key(environment, user)
            worker_id, registration = self._worker(environment, user)
            trigger_id = self._trigger("trigger", environment, TRIGGER, worker_id=worker_id)
            pool_id = self._pool(environment, user, worker_id)
            self._trigger("pool's trigger", environment, POOL_TRIGGER, pool_id=pool_id)
            self._budget(environment)
            is_new = "environment" in self.made
            if is_new:
                self.made.append("a week of runs")
            else:
                self._move_week(environment)
            if self.made:
                emit(
                    Event(
                        "demo.seeded",
                        SYSTEM,
                        environment.id,
                        "environment",
                        environment.id,
                        {"made": self.made},
                    )
                )
            if is_new:  # The event has made the channel that tells of the incident of the week.
                self._week(environment, user, worker_id, now or database_now())
            registration.save(self.worker_file)
            durable.write_json(
                self.file,
                {
                    "email": EMAIL,
                    "password": password,
                    "staffEmail": STAFF_EMAIL,
                    "staffPassword": staff_password,
                    "environmentId": str(environment.id),
                    "triggerId": str(trigger_id),
                    "apiKey": api_key,
                },
            )

    def _user(self) -> tuple[User, str]:
        def make(password: str) -> User:
            return create_user(email=EMAIL, password=password, name="Demo", actor=SYSTEM)

        return self._account(EMAIL, "password", "user", make)

    def _staff_password(self) -> str:
        def make(password: str) -> User:
            return create_staff(
                email=STAFF_EMAIL, password=password, name="Demo staff", actor=SYSTEM
            )

        return self._account(STAFF_EMAIL, "staffPassword", "staff user", make)[1]

    def _account(
        self, email: Email, kept_as: str, what: str, make: Callable[[str], User]
    ) -> tuple[User, str]:
        """Returns the user and a password that works: the one in the demo's file if it still works, else a new one."""
        kept = str(self._kept.get(kept_as))
        user = User.objects.filter(email=email).first()
        if user is not None and is_password_of(user, kept):
            return user, kept
        password = secrets.token_urlsafe(12)
        if user is None:
            user = make(password)
            self.made.append(what)
        else:
            User.objects.filter(id=user.id).update(password=hash_password(password))
            end_sessions(user.id)
            emit(Event("user.password-changed", SYSTEM, None, "user", user.id))
            self.made.append(f"{what}'s password")
        return user, password

    def _environment(self, user: User) -> Environment:
        environment = Environment.objects.filter(
            workspace__created_by=user,
            workspace__name=WORKSPACE,
            name=ENVIRONMENT,
            deleted_at__isnull=True,
        ).first()
        if environment is None:
            workspace = create_workspace(name=WORKSPACE, user_id=user.id, actor=SYSTEM)
            environment = create_environment(
                workspace_id=workspace.id, name=ENVIRONMENT, user_id=user.id, actor=SYSTEM
            )
            self.made += ["workspace", "environment"]
        return environment

    def _api_key(self, environment: Environment, user: User) -> str:
        token = str(self._kept.get("apiKey"))
        live = ApiKey.objects.filter(environment=environment, revoked_at__isnull=True)
        if not live.filter(token_digest=tokens.digest(token)).exists():
            _, token = self._mint("pwk", environment, user)
            self.made.append("API key")
        return token

    def _worker(self, environment: Environment, user: User) -> tuple[UUID, WorkerConfig]:
        try:
            registration = WorkerConfig.load(self.worker_file)
        except ConfigError:
            registration = None
        if registration is not None:
            worker = Worker.objects.filter(
                environment=environment, token_digest=tokens.digest(registration.worker_token)
            ).first()
            if worker is not None:
                return worker.id, registration
        registered = self._register(HOSTNAME, "Demo worker", environment, user)
        self.made.append("worker")
        return registered.worker_id, WorkerConfig(
            worker_id=str(registered.worker_id),
            worker_token=registered.worker_token,
            api_url=settings.PUBLIC_URL,
            workspace_id=str(registered.workspace_id),
        )

    def _register(
        self, hostname: str, label: str, environment: Environment, user: User, **key: Any
    ) -> Registered:
        values = validated(
            RegisterBody,
            {
                "hostname": hostname,
                "label": label,
                "os": f"{platform.system()} {platform.release()}",
                "version": worker_version,
            },
        )
        _, token = self._mint("wrk", environment, user, **key)
        return register_worker(token=token, values=values, actor=SYSTEM)

    def _pool(self, environment: Environment, user: User, worker_id: UUID) -> UUID:
        """Returns the id of the pool, in which the demo's worker and a spare one are."""
        live = Pool.objects.filter(environment=environment, deleted_at__isnull=True)
        pool = live.filter(name=POOL).first()
        if pool is None:
            values = {"name": POOL, "description": "Made by seed_demo."}
            POOLS.create(environment_id=environment.id, values=values, actor=SYSTEM)
            pool = live.get(name=POOL)
            self._register(SPARE_HOSTNAME, "Spare worker", environment, user, pool_ids=[pool.id])
            self.made.append("pool")
        add_worker(pool=pool, worker_id=worker_id, actor=SYSTEM)
        return pool.id

    def _trigger(
        self, what: str, environment: Environment, values: dict[str, Any], **runs_on: UUID
    ) -> UUID:
        """Returns the id of the trigger with these values. `runs_on` is its `worker_id` or its `pool_id`."""
        trigger = Trigger.objects.filter(
            environment=environment, name=values["name"], deleted_at__isnull=True, **runs_on
        ).first()
        if trigger is not None:
            self._move(what, trigger)
            return trigger.id
        values = validated(TriggerBody, {**values, **self._server})
        self.made.append(what)
        return TRIGGERS.create(
            environment_id=environment.id,
            actor=SYSTEM,
            values={**values, **runs_on},
        )

    def _move(self, what: str, trigger: Trigger) -> None:
        """Gives the trigger another MCP server, if the command names one. The headers move with it. The server of a
        trigger that got a connection, or that files describe, is the user's.
        """
        if trigger.connection_id or trigger.managed_by:
            return
        if self._server.get("mcpUrl", trigger.mcp_url) == trigger.mcp_url:
            return
        values = validated(TriggerBody, {**TRIGGER, **self._server})
        values = {name: values[name] for name in ("mcp_url", "mcp_headers")}
        TRIGGERS.update(trigger.id, values=values, actor=SYSTEM)
        self.made.append(f"MCP server of the {what}")

    def _week(self, environment: Environment, user: User, worker_id: UUID, now: datetime) -> None:
        spare = Worker.objects.get(environment=environment, hostname=SPARE_HOSTNAME)
        machines = ((HEALTHY, worker_id), (FAILING, worker_id), (STRANDED, spare.id))
        server = {name: TRIGGER[name] for name in ("mcpUrl", "mcpHeaders")}
        ids = [
            self._trigger(values["name"], environment, {**server, **values}, worker_id=machine)
            for values, machine in machines
        ]
        healthy, failing, stranded = (Trigger.objects.get(id=id_) for id_ in ids)
        live_through(healthy, failing, stranded, offline=spare, user_id=user.id, now=now)

    def _move_week(self, environment: Environment) -> None:
        names = [values["name"] for values in (HEALTHY, FAILING, STRANDED)]
        for trigger in Trigger.objects.filter(
            environment=environment, name__in=names, deleted_at__isnull=True
        ):
            self._move(trigger.name, trigger)

    def _budget(self, environment: Environment) -> None:
        if Budget.objects.filter(environment=environment, deleted_at__isnull=True).exists():
            return
        values = validated(BudgetBody, BUDGET)
        BUDGETS.create(environment_id=environment.id, actor=SYSTEM, values=values)
        self.made.append("budget")

    def _mint(
        self, kind: str, environment: Environment, user: User, **key: Any
    ) -> tuple[ApiKey, str]:
        return mint_api_key(
            environment_id=environment.id,
            name="Demo",
            kind=kind,
            user_id=user.id,
            actor=SYSTEM,
            **key,
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        return durable.read_json_object(path)
    except (OSError, ValueError):
        return {}

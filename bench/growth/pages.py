"""The pages to measure: each list of the API with each filter, at its start and deep in it, and the workers' calls."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import transaction
from django.test import Client, RequestFactory
from rest_framework.request import Request

from accounts.models import User
from audit.serializers import AuditFilters
from bench.failure import BenchFailed
from bench.growth import same_work
from bench.growth.subjects import Subjects, middle, quarters
from bench.lifecycle_load import OUTCOME
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.api.pagination import _salt, _sign
from pipedai.outgoing.due import claim_due
from pipedai.sql import database_now
from testing.world.cast import session_cookie
from triggers.filters import TickFilters, TriggerFilters
from triggers.models import Run
from triggers.runs.filters import EnvironmentRunFilters, RunFilters
from triggers.runs.lifecycle import expire_runs
from triggers.runs.stats import GROUPINGS
from triggers.schedules.firing import fire_due_ticks
from triggers.states import Decision, FaultClass, Source, Status
from triggers.webhooks.sending import WEBHOOKS
from workers.filters import WorkerFilters

# The id in a cursor. A cursor needs no row with its id.
_NO_ID = UUID(int=0)
_ACTIONS = ("run.completed", "run.claimed", "trigger.created", "run.lost", "webhook.tested")

# The targets of a statement, and of one that adds up the runs of a month, in milliseconds.
MOST_MS, MOST_STATISTICS_MS = 20.0, 50.0

Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """Something to measure. `call` does it once, and each of its statements should take `most_ms` at most.

    `counted` is how many rows the answer adds up, if it adds up more with more rows.
    """

    name: str
    call: Callable[[], object]
    counted: int = 1
    most_ms: float = MOST_MS


@dataclass(frozen=True, slots=True)
class _List:
    """A list of the API: its path, its filters, and the table and column that it pages by."""

    name: str
    path: str
    filter_names: tuple[str, ...]
    table: str
    column: str
    where: str
    queries: tuple[Query, ...] = ()


def api_pages(on: Subjects, values: int | None) -> Iterator[Page]:
    """Yield every list and the overview, as the browser of the environment's owner requests them. Of each list it tries
    so many queries, or all; with so many, only lists without a filter are read deep.
    """
    client = browser_of(on.owner)
    environment = f"/api/v1/environments/{on.environment.id}"
    for each in _lists(on):
        for query in ({}, *each.queries[:values]):
            yield Page(f"{each.name}{shown(query)}", get(client, each.path, query))
            if values is not None and query:
                continue
            if (moment := middle(each.table, each.column, each.where)) is not None:
                asked = Request(RequestFactory().get(each.path, query))
                cursor = _sign(_salt(asked, each.filter_names), moment, _NO_ID)
                deep = {**query, "cursor": cursor}
                yield Page(f"{each.name}{shown(query)}, deep", get(client, each.path, deep))
    others = {
        "one run": f"/api/v1/runs/{on.run_id}",
        "one trigger": f"/api/v1/triggers/{on.trigger_id}",
        "why a run waits": f"/api/v1/runs/{on.run_id}/explain",
        "what became of a due time": f"/api/v1/triggers/{on.scheduled_trigger_id}/explain",
        "overview": f"{environment}/dashboard/overview",
    }
    for name, path in others.items():
        yield Page(name, get(client, path, {}))


def busy_pages(owner: User, environment_id: UUID) -> Iterator[Page]:
    """Yield the pages that add up the runs of the present month."""
    client = browser_of(owner)
    first = first_of_month()
    ended = Run.objects.filter(environment_id=environment_id, ended_at__gte=first).count()

    def page(name: str, path: str, query: Query) -> Page:
        return Page(name, get(client, f"{environment}/{path}", query), ended, MOST_STATISTICS_MS)

    environment = f"/api/v1/environments/{environment_id}"
    yield page("overview", "dashboard/overview", {})
    for group_by in GROUPINGS:
        query = {"groupBy": group_by, "from": first.isoformat()}
        yield page(f"statistics by {group_by}", "stats", query)


def first_of_month() -> datetime:
    return database_now().astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def browser_of(user: User) -> Client:
    client = Client(SERVER_NAME="localhost")
    client.cookies[AUTH_COOKIE] = session_cookie(user)
    return client


def machine_pages(on: Subjects) -> Iterator[Page]:
    """Yield what workers and schedulers do. Whatever they write is rolled back."""
    worker = f"/api/v1/workers/{on.worker_id}"
    client = Client(SERVER_NAME="localhost", headers={"authorization": f"Bearer {on.worker_token}"})
    owner = browser_of(on.owner)

    def lifecycle() -> None:
        created = post(owner, f"/api/v1/triggers/{on.trigger_id}/run", {})
        run = f"{worker}/runs/{created['id']}"
        get(client, f"{worker}/poll", {})()
        for step in ("claim", "start", "heartbeat"):
            post(client, f"{run}/{step}", {})
        post(client, f"{run}/complete", OUTCOME)

    due_at = same_work.prepare(without_worker=on.worker_id)
    later = database_now() + timedelta(days=1)

    def fire() -> None:
        if fire_due_ticks(now=due_at) != same_work.DUE:
            raise BenchFailed(f"Not {same_work.DUE} triggers came due.")

    def expire() -> None:
        if expire_runs(now=later) != same_work.LOST:
            raise BenchFailed(f"Not {same_work.LOST} runs were lost.")

    def claim() -> None:
        claim_due(WEBHOOKS, room=32, busy={}, per_host=4, now=later)

    yield Page("poll", get(client, f"{worker}/poll", {}))
    yield Page("a whole lifecycle", undone(lifecycle))
    yield Page(f"firing {same_work.DUE} due triggers", undone(fire))
    yield Page(f"expiring {same_work.LOST} leases", undone(expire))
    yield Page("claiming due webhooks", undone(claim))


def _lists(on: Subjects) -> Iterator[_List]:
    root, of_it = "/api/v1", f"environment_id = '{on.environment.id}'"
    environment, trigger = f"{root}/environments/{on.environment.id}", f"{root}/triggers"
    runs = (of_it, f"trigger_id = '{on.trigger_id}'")
    yield _List(
        "runs", f"{environment}/runs", EnvironmentRunFilters.names(), "run", "queued_at", of_it,
        tuple(_run_queries(on, quarters("run", "queued_at", of_it))),
    )  # fmt: skip
    yield _List(
        "runs of a trigger", f"{trigger}/{on.trigger_id}/runs", RunFilters.names(), "run", "queued_at", runs[1],
        tuple(_status_queries(quarters("run", "queued_at", runs[1]))),
    )  # fmt: skip
    ticks = f"trigger_id = '{on.scheduled_trigger_id}'"
    yield _List(
        "ticks", f"{trigger}/{on.scheduled_trigger_id}/ticks", TickFilters.names(), "tick", "tick_at", ticks,
        tuple(_tick_queries(quarters("tick", "tick_at", ticks))),
    )  # fmt: skip
    yield _List(
        "deliveries", f"{trigger}/{on.hooked_trigger_id}/deliveries", (), "delivery", "created_at",
        f"trigger_id = '{on.hooked_trigger_id}'",
    )  # fmt: skip
    yield _List(
        "audit log", f"{environment}/audit-log", AuditFilters.names(), "audit_entry", "created_at", of_it,
        tuple(_audit_queries(on, quarters("audit_entry", "created_at", of_it))),
    )  # fmt: skip
    yield _List(
        "triggers", f"{environment}/triggers", TriggerFilters.names(), "trigger", "created_at", of_it,
        ({"workerId": str(on.worker_id)}, {"enabled": "true"}, {"enabled": "false"}, {"name": "report"}),
    )  # fmt: skip
    yield _List(
        "workers", f"{environment}/workers", WorkerFilters.names(), "worker", "created_at", of_it,
        ({"status": "online"}, {"status": "offline"}),
    )  # fmt: skip
    yield _List("keys", f"{environment}/api-keys", (), "api_key", "created_at", of_it)
    yield _List("members", f"{environment}/members", (), "membership", "created_at", of_it)
    workspace = on.environment.workspace_id
    yield _List(
        "environments", f"{root}/workspaces/{workspace}/environments", (), "environment", "created_at",
        f"workspace_id = '{workspace}'",
    )  # fmt: skip
    yield _List(
        "workspaces", f"{root}/workspaces", (), "workspace", "created_at",
        f"created_by_id = '{on.owner.id}'",
    )  # fmt: skip


def _status_queries(between: tuple[datetime, datetime]) -> Iterator[Query]:
    begin, end = (moment.isoformat() for moment in between)
    for status in (*Status.values, "failed,timed_out"):
        yield {"status": status}
        yield {"status": status, "from": begin, "to": end}
    yield {"from": begin}
    yield {"to": end}
    yield {"from": begin, "to": end}
    yield {"endedFrom": begin}
    yield {"endedTo": end}
    for query in (
        {},
        {"status": "failed"},
        {"faultClass": "infra"},
        {"source": "retry"},
        {"final": "true"},
    ):
        yield {**query, "endedFrom": begin, "endedTo": end}
    yield from ({"faultClass": each} for each in FaultClass.values)
    yield from ({"source": each} for each in Source.values)
    yield {"final": "true"}
    yield {"final": "true", "status": "failed,timed_out"}
    # An environment has few of these runs, if any.
    yield {"final": "true", "faultClass": "infra"}
    yield {"final": "true", "faultClass": "infra", "source": "api"}
    yield {"final": "true", "faultClass": "infra", "endedTo": end}
    yield {"source": "api", "status": "failed"}


def _tick_queries(between: tuple[datetime, datetime]) -> Iterator[Query]:
    begin, end = (moment.isoformat() for moment in between)
    for decision in Decision.values:
        yield {"decision": decision}
        yield {"decision": decision, "from": begin, "to": end}
    yield {"from": begin, "to": end}


def _run_queries(on: Subjects, between: tuple[datetime, datetime]) -> Iterator[Query]:
    yield from _status_queries(between)
    worker, trigger = {"workerId": str(on.worker_id)}, {"triggerId": str(on.trigger_id)}
    for ids in (worker, trigger, {**worker, **trigger}):
        yield ids
        for status in Status.values:
            yield {**ids, "status": status}
        yield from ({**ids, "source": source} for source in Source.values)
        yield {**ids, "faultClass": "infra", "final": "true"}


def _audit_queries(on: Subjects, between: tuple[datetime, datetime]) -> Iterator[Query]:
    begin, end = (moment.isoformat() for moment in between)
    yield from ({"action": action} for action in _ACTIONS)
    yield {"actions": ",".join(_ACTIONS[2:])}
    yield {"targetId": str(on.run_id)}
    yield {"targetId": str(on.run_id), "action": "run.completed"}
    yield {"from": begin}
    yield {"to": end}
    yield {"from": begin, "to": end}
    yield {"from": begin, "to": end, "action": "run.lost"}


def get(client: Client, path: str, query: Query) -> Callable[[], object]:
    url = f"{path}?{urlencode(query)}" if query else path

    def call() -> object:
        answer = client.get(url)
        if answer.status_code != 200:
            raise BenchFailed(f"GET {url} answered {answer.status_code}.")
        return answer.content

    return call


def post(client: Client, path: str, body: object) -> Any:
    answer = client.post(path, body, content_type="application/json")
    if answer.status_code not in (200, 201):
        raise BenchFailed(f"POST {path} answered {answer.status_code}: {answer.content!r}")
    return answer.json()


def undone(call: Callable[[], object]) -> Callable[[], object]:
    """Returns the call in a transaction that is rolled back."""

    def rolled_back() -> None:
        with transaction.atomic():
            call()
            transaction.set_rollback(True)

    return rolled_back


def shown(query: Query) -> str:
    """Return the filters as text. Ids and times are long, so it says only that there is one."""
    words = (
        f"{name}={value}" if len(value) < 20 or "," in value else name
        for name, value in query.items()
    )
    return f"?{'&'.join(words)}" if query else ""

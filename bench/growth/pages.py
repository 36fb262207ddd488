"""The pages to measure: each list of the API with each filter, at its start and deep in it, and the workers' calls."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode
from uuid import UUID

from django.db import transaction
from django.test import Client, RequestFactory
from rest_framework.request import Request

from accounts.models import User
from audit.serializers import AuditFilters
from bench.growth.ledger import DUE, LOST
from bench.growth.subjects import Subjects, middle, quarters
from bench.lifecycle import OUTCOME
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.api.pagination import _salt, _sign
from pipedai.outgoing.due import claim_due
from pipedai.sql import database_now
from testing.processes.failure import ProcessFailed
from testing.world.cast import session_cookie
from triggers.models import Run, Trigger
from triggers.runs.lifecycle import expire_runs
from triggers.runs.queries import EnvironmentRunFilters, RunFilters
from triggers.runs.stats import GROUPINGS
from triggers.schedules.firing import fire_due_ticks
from triggers.schedules.views import TickFilters
from triggers.states import Decision, FaultClass, Source, Status
from triggers.views import TriggerFilters
from triggers.webhooks.sending import WEBHOOKS
from workers.serializers import WorkerFilters

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


class _List(NamedTuple):
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
                cursor = _sign(_salt(asked, each.filter_names), [moment.isoformat(), _NO_ID.hex])
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

    due_at = Trigger.objects.earliest("next_run_at").next_run_at
    later = database_now() + timedelta(days=1)

    def fire() -> None:
        if fire_due_ticks(now=due_at) != DUE:
            raise ProcessFailed(f"Not {DUE} triggers came due.")

    def expire() -> None:
        if expire_runs(now=later) != LOST:
            raise ProcessFailed(f"Not {LOST} runs were lost.")

    def claim() -> None:
        claim_due(WEBHOOKS, room=32, busy={}, per_host=4, now=later)

    yield Page("poll", get(client, f"{worker}/poll", {}))
    yield Page("a whole lifecycle", undone(lifecycle))
    yield Page(f"firing {DUE} due triggers", undone(fire))
    yield Page(f"expiring {LOST} leases", undone(expire))
    yield Page("claiming due webhooks", undone(claim))


def _lists(on: Subjects) -> Iterator[_List]:
    root, of_it = "/api/v1", f"environment_id = '{on.environment.id}'"
    environment, workspace = f"{root}/environments/{on.environment.id}", on.environment.workspace_id
    of_trigger, of_scheduled, of_hooked = (
        f"trigger_id = '{each}'"
        for each in (on.trigger_id, on.scheduled_trigger_id, on.hooked_trigger_id)
    )
    ids = ({"workerId": str(on.worker_id)}, {"triggerId": str(on.trigger_id)})
    runs = quarters("run", "queued_at", of_it)
    yield _List(
        "runs", f"{environment}/runs", EnvironmentRunFilters.binding_names(), "run", "queued_at", of_it,
        (*_run_queries(runs), *_pair_queries(*ids)),
    )  # fmt: skip
    yield _List(
        "runs of a trigger", f"{root}/triggers/{on.trigger_id}/runs", RunFilters.binding_names(), "run",
        "queued_at", of_trigger, tuple(_run_queries(quarters("run", "queued_at", of_trigger))),
    )  # fmt: skip
    yield _List(
        "ticks", f"{root}/triggers/{on.scheduled_trigger_id}/ticks", TickFilters.binding_names(), "tick",
        "tick_at", of_scheduled, tuple(_tick_queries(quarters("tick", "tick_at", of_scheduled))),
    )  # fmt: skip
    yield _List(
        "audit log", f"{environment}/audit-log", AuditFilters.binding_names(), "audit_entry", "created_at", of_it,
        tuple(_audit_queries(on, quarters("audit_entry", "created_at", of_it))),
    )  # fmt: skip
    yield _List(
        "triggers", f"{environment}/triggers", TriggerFilters.binding_names(), "trigger", "created_at", of_it,
        ({"workerId": str(on.worker_id)}, {"enabled": "true"}, {"enabled": "false"}, {"name": "report"}),
    )  # fmt: skip
    yield _List(
        "workers", f"{environment}/workers", WorkerFilters.binding_names(), "worker", "created_at", of_it,
        ({"status": "online"}, {"status": "offline"}),
    )  # fmt: skip
    for name, path, table, where in (
        ("deliveries", f"{root}/triggers/{on.hooked_trigger_id}/deliveries", "delivery", of_hooked),
        ("keys", f"{environment}/api-keys", "api_key", of_it),
        ("members", f"{environment}/members", "membership", of_it),
        ("environments", f"{root}/workspaces/{workspace}/environments", "environment", f"workspace_id = '{workspace}'"),
        ("workspaces", f"{root}/workspaces", "workspace", f"created_by_id = '{on.owner.id}'"),
    ):  # fmt: skip
        yield _List(name, path, (), table, "created_at", where)


def _run_queries(between: tuple[datetime, datetime]) -> Iterator[Query]:
    begin, end = (moment.isoformat() for moment in between)
    queued, ended = {"from": begin, "to": end}, {"endedFrom": begin, "endedTo": end}
    for status in (*Status.values, "failed,timed_out"):
        yield from ({"status": status, **span} for span in ({}, queued))
    yield from ({name: moment} for name, moment in (*queued.items(), *ended.items()))
    yield queued
    # An environment has few of the runs of several of these, if any.
    infra, final, api = {"faultClass": "infra"}, {"final": "true"}, {"source": "api"}
    failed = {"status": "failed"}
    yield from ({**each, **ended} for each in ({}, failed, infra, {"source": "retry"}, final))
    yield from ({"faultClass": each} for each in FaultClass.values)
    yield from ({"source": each} for each in Source.values)
    yield from (final, {**final, "status": "failed,timed_out"}, {**final, **infra})
    yield from ({**final, **infra, **api}, {**final, **infra, "endedTo": end}, {**api, **failed})


def _pair_queries(worker: Query, trigger: Query) -> Iterator[Query]:
    for ids in (worker, trigger, {**worker, **trigger}):
        yield ids
        yield from ({**ids, "status": status} for status in Status.values)
        yield from ({**ids, "source": source} for source in Source.values)
        yield {**ids, "faultClass": "infra", "final": "true"}


def _tick_queries(between: tuple[datetime, datetime]) -> Iterator[Query]:
    span = dict(zip(("from", "to"), (moment.isoformat() for moment in between), strict=True))
    for decision in Decision.values:
        yield from ({"decision": decision, **more} for more in ({}, span))
    yield span


def _audit_queries(on: Subjects, between: tuple[datetime, datetime]) -> Iterator[Query]:
    begin, end = (moment.isoformat() for moment in between)
    yield from ({"action": action} for action in _ACTIONS)
    yield {"actions": ",".join(_ACTIONS[2:])}
    yield from ({"targetId": str(on.run_id), **more} for more in ({}, {"action": _ACTIONS[0]}))
    yield from ({"from": begin}, {"to": end}, {"from": begin, "to": end})
    yield {"from": begin, "to": end, "action": "run.lost"}


def get(client: Client, path: str, query: Query) -> Callable[[], object]:
    url = f"{path}?{urlencode(query)}" if query else path

    def call() -> object:
        answer = client.get(url)
        if answer.status_code != 200:
            raise ProcessFailed(f"GET {url} answered {answer.status_code}.")
        return answer.content

    return call


def post(client: Client, path: str, body: object) -> Any:
    answer = client.post(path, body, content_type="application/json")
    if answer.status_code not in (200, 201):
        raise ProcessFailed(f"POST {path} answered {answer.status_code}: {answer.content!r}")
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

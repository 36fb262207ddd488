"""No list needs more SQL statements for more rows, and each call needs a known number of them."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from notices.channels.services import test_channel as queue_test
from notices.models import Channel, NoticeAttempt
from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.probes.api_schema import is_list
from testing.probes.statement_count import counted
from testing.world.budgets import add_budget
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, issue_enrollment, session_cookie
from testing.world.channels import add_channel
from testing.world.connections import add_connection
from testing.world.events import add_decision, add_event, add_source
from testing.world.incidents import open_incident
from testing.world.mails import invite_for_test
from testing.world.pools import add_pool
from testing.world.routes import ROUTES
from testing.world.runs import Runs
from testing.world.undone import undone
from testing.world.users import UserFactory
from triggers.models import DeliveryAttempt, EventSource, Tick, TriggerHealth
from triggers.webhooks.sending import send_test
from workers.models import Worker
from workspaces.models import Membership
from workspaces.services import create_environment, create_workspace


def _workspaces(cast, count):
    for n in range(count):
        create_workspace(name=str(n), user_id=cast.owner.id, actor=TEST_ACTOR)


def _environments(cast, count):
    for _ in range(count):
        create_environment(
            workspace_id=cast.workspace.id,
            name=str(new_id()),
            user_id=cast.owner.id,
            actor=TEST_ACTOR,
        )


def _members(cast, count):
    Membership.objects.bulk_create(
        Membership(environment=cast.environment, user=UserFactory.create(), role="viewer")
        for _ in range(count)
    )


def _keys(cast, count):
    for _ in range(count):
        cast.mint("pwk")


def _triggers(cast, count):
    """Adds triggers, each with a last run."""
    for _ in range(count):
        client_run(cast, cast.add_trigger())


def _revisions(cast, count):
    for n in range(count):
        body = {"prompt": f"{new_id()} {n}"}
        cast.client(cast.owner).patch(f"/api/v1/triggers/{cast.trigger_id}", body)


def _runs(cast, count):
    for _ in range(count):
        client_run(cast, cast.trigger_id)


def _ticks(cast, count):
    now = datetime.now(UTC)
    moments = [now + timedelta(seconds=n) for n in range(count)]
    Tick.objects.bulk_create(
        Tick(
            environment=cast.environment,
            trigger_id=cast.trigger_id,
            tick_at=moment,
            last_tick_at=moment,
            decision="skipped_no_worker",
        )
        for moment in moments
    )


def _deliveries(cast, count):
    """Adds deliveries, each with two attempts."""
    for _ in range(count):
        delivery_id = send_test(trigger_id=cast.trigger_id, actor=TEST_ACTOR)
        DeliveryAttempt.objects.bulk_create(
            DeliveryAttempt(
                environment=cast.environment,
                delivery_id=delivery_id,
                n=n,
                at=datetime.now(UTC),
                status_code=503,
                duration_ms=1,
            )
            for n in (1, 2)
        )


def _workers(cast, count):
    """Adds workers, each of which holds a run."""
    for _ in range(count):
        worker = cast.register(str(new_id()))
        trigger_id = cast.add_trigger(worker_id=worker.worker_id)
        run_id = client_run(cast, trigger_id)
        cast.worker_client(worker).post(
            f"/api/v1/workers/{worker.worker_id}/runs/{run_id}/claim", {}
        )


def _audit_entries(cast, count):
    """Adds audit entries by persons, keys, workers and the system."""
    _workers(cast, count)
    for _ in range(count):
        cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {})


def _enrollments(cast, count):
    for _ in range(count):
        issue_enrollment(cast.environment, cast.owner)


def _budgets(cast, count):
    for _ in range(count):
        add_budget(cast, trigger_id=cast.trigger_id)


def _connections(cast, count):
    for _ in range(count):
        add_connection(cast)


def _sources(cast, count):
    for _ in range(count):
        add_source(cast)


def _events(cast, count):
    """Adds events of the stage's source, each with two decisions."""
    source_id = EventSource.objects.values_list("id", flat=True).earliest("id")
    other = cast.add_trigger()
    for _ in range(count):
        event = add_event(cast, source_id=source_id)
        for trigger_id in (cast.trigger_id, other):
            add_decision(event, trigger_id, "filtered")


def _channels(cast, count):
    """Adds channels, of mail and of Slack, and a confirmed address for each."""
    for n in range(count):
        add_channel(cast, ("email", "slack")[n % 2])


def _notices(cast, count):
    """Adds notices, each with two attempts."""
    channel = Channel.objects.get()
    for _ in range(count):
        notice_ids = queue_test(channel_id=channel.id, actor=TEST_ACTOR)
        NoticeAttempt.objects.bulk_create(
            NoticeAttempt(
                environment=cast.environment,
                notice_id=notice_id,
                n=n,
                at=datetime.now(UTC),
                status_code=503,
                duration_ms=1,
            )
            for notice_id in notice_ids
            for n in (1, 2)
        )


def _incidents(cast, count):
    for _ in range(count):
        open_incident(cast)


def _pools(cast, count):
    """Adds pools, each with a worker."""
    for _ in range(count):
        add_pool(cast, cast.register(str(new_id())).worker_id)


def _sessions(cast, count):
    for _ in range(count):
        session_cookie(cast.owner)


def _invitations(cast, count):
    for _ in range(count):
        invite_for_test(cast.environment, cast.owner, f"{new_id()}@example.com")


def client_run(cast, trigger_id):
    response = cast.client(cast.owner).post(
        f"/api/v1/triggers/{trigger_id}/run", {"payload": {"n": 1}}
    )
    assert response.status_code == 201
    return response.json()["id"]


def _approvals(cast, count):
    runs = Runs(cast, cast.add_trigger(), now=database_now())
    for _ in range(count):
        runs.waiting()


# What makes the rows of each list.
LISTS = {
    "GET auth/sessions": _sessions,
    "GET environments/:environment/invitations": _invitations,
    "GET workspaces": _workspaces,
    "GET workspaces/:workspace/environments": _environments,
    "GET environments/:environment/members": _members,
    "GET environments/:environment/api-keys": _keys,
    "GET environments/:environment/audit-log": _audit_entries,
    "GET environments/:environment/triggers": _triggers,
    "GET environments/:environment/runs": _runs,
    "GET triggers/:trigger/runs": _runs,
    "GET triggers/:trigger/ticks": _ticks,
    "GET triggers/:trigger/revisions": _revisions,
    "GET triggers/:trigger/deliveries": _deliveries,
    "GET environments/:environment/workers": _workers,
    "GET environments/:environment/pools": _pools,
    "GET environments/:environment/enrollments": _enrollments,
    "GET environments/:environment/incidents": _incidents,
    "GET environments/:environment/budgets": _budgets,
    "GET environments/:environment/approvals": _approvals,
    "GET environments/:environment/connections": _connections,
    "GET environments/:environment/sources": _sources,
    "GET environments/:environment/events": _events,
    "GET sources/:source/events": _events,
    "GET environments/:environment/channels": _channels,
    "GET channels/:channel/notices": _notices,
    "GET workspaces/:workspace/workers": _workers,
}
BY_NAME = {str(route): route for route in ROUTES}
OTHER_READS = [
    route
    for route in ROUTES
    if route.method == "GET" and str(route) not in LISTS and not route.of_workers
]
WORKER_CALLS = [route for route in ROUTES if route.of_workers and route.method == "POST"]


def test_every_read_and_every_call_of_a_worker_is_counted():
    counted_below = {"GET workers/:worker/poll"}
    uncounted = [
        str(route)
        for route in ROUTES
        if (route.method == "GET" or route.of_workers) and route.statements is None
    ]
    assert set(uncounted) == counted_below, (
        "rows of testing/world/routes.py lack `statements`: see CONTRIBUTING.md, An endpoint"
    )


def test_every_list_is_tried_with_many_rows():
    lists = {str(route) for route in ROUTES if is_list(route)}
    assert lists == set(LISTS), (
        "LISTS in pipedai/api/tests/test_query_counts.py has to make rows for each list: "
        "see CONTRIBUTING.md, An endpoint"
    )


@cases("name", LISTS)
def test_a_list_costs_the_same_for_one_row_and_for_ten(stage, name):
    cast, make, route = stage.cast, LISTS[name], BY_NAME[name]
    url = f"{route.url(stage)}?limit=200"
    with undone():
        make(cast, 1)
        client = route.caller(cast)
        with counted() as few:
            before = len(client.get(url).json()["items"])
        make(cast, 9)
        client = route.caller(cast)  # A key's use is noted again.
        with counted() as many:
            after = len(client.get(url).json()["items"])
    assert after - before >= 9
    assert len(few) == route.statements, f"{few}: see testing/world/routes.py"
    assert len(many) == route.statements, f"{many}: see testing/world/routes.py"


@cases("route", OTHER_READS)
def test_another_read_costs_few_statements(stage, route):
    cast = stage.cast
    with undone():
        client = route.caller(cast)
        with counted() as statements:
            response = route.send(client, route.url(stage), cast)
    assert response.status_code == 200
    assert len(statements) == route.statements, f"{statements}: see testing/world/routes.py"


def test_a_key_costs_one_statement_less_than_a_session_and_a_role(cast):
    url, client = f"/api/v1/environments/{cast.environment.id}/triggers", cast.key_client()
    with counted() as first:
        client.get(url)
    with counted() as second:
        client.get(url)
    assert (len(first), len(second)) == (4, 3)  # The first call notes the key's use.


class TestTheCallsOfAWorker:
    """Each call here comes after a first one, which notes that the worker was seen."""

    @pytest.fixture
    def stage(self, stage):
        Worker.objects.update(last_seen_at=Now())
        # A run of the trigger has ended before. The first end of all costs more, since it makes this row.
        TriggerHealth.objects.update_or_create(
            trigger_id=stage.cast.trigger_id,
            defaults={"environment": stage.cast.environment, "has_outcome": True},
        )
        return stage

    def call(self, stage, name):
        route, client = BY_NAME[name], stage.cast.worker_client()
        with counted() as statements:
            response = route.send(client, route.url(stage), stage.cast)
        assert response.status_code == route.answer
        return statements

    def test_poll_reads_the_worker_and_the_runs_and_keeps_what_it_hands_out(self, stage):
        first, again = (self.call(stage, "GET workers/:worker/poll") for _ in range(2))
        assert len(first) == 3, str(first)
        assert len(again) == 2, str(again)

    def test_poll_costs_the_same_for_many_runs(self, stage):
        _runs(stage.cast, 9)
        Worker.objects.update(max_concurrency=30)
        assert len(self.call(stage, "GET workers/:worker/poll")) == 3

    @cases("route", WORKER_CALLS)
    def test_a_verb_costs(self, stage, route):
        """The token and the transition; for a claim also the lock on the worker and the audit row, for the end of a run
        the delivery, the audit row and the health of its trigger, for a start the audit row.
        """
        with undone():
            statements = self.call(stage, str(route))
        assert len(statements) == route.statements, str(statements)

    def test_complete_costs_the_same_however_many_runs_there_are(self, stage):
        _runs(stage.cast, 9)
        assert len(self.call(stage, "POST workers/:worker/runs/:run/complete")) == 5

    def test_being_seen_costs_one_more_at_most_every_ten_seconds(self, stage):
        Worker.objects.update(last_seen_at=Now() - timedelta(seconds=30))
        counts = [
            len(self.call(stage, "POST workers/:worker/runs/:run/heartbeat")) for _ in range(2)
        ]
        assert counts == [3, 2]

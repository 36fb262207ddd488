"""Staff find a customer's rows by what the customer tells them, and pages say why something has not run."""

import html
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.test import RequestFactory

from accounts.models import User
from audit.models import AuditEntry
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.columns import link_to
from pipedai.admin.site import list_of, page_of, site
from pipedai.admin.tests.test_pages import ids_in, text_of
from pipedai.api.filters import TextFilter
from pipedai.events import Actor
from testing.probes.api_urls import operation_of_action
from testing.probes.plans import explained, prefer_indexes
from testing.probes.statement_count import counted
from testing.processes.worker_calls import WorkerCalls
from testing.world.copies import add_copies
from testing.world.routes import ROUTES
from testing.world.runs import NOON, Runs
from testing.world.users import UserFactory
from triggers import admin as answers
from triggers.models import Run, Tick, Trigger, TriggerHealth
from triggers.states import Decision
from workers.models import Worker
from workspaces.models import Environment, Membership, Workspace
from workspaces.services import create_environment

BERLIN = {"schedule": "0 9 * * *", "timezone": "Europe/Berlin"}


def test_a_users_page_lists_their_environments_and_leads_to_what_these_hold(desk, cast):
    url = page_of(User, cast.owner.id)
    with counted() as few:
        page = text_of(desk.get(url))
    for model in (Trigger, Run, Worker):
        assert f'href="{list_of(model, environment=cast.environment.id)}"' in page
    assert page_of(Environment, cast.environment.id) in page
    assert page_of(Workspace, cast.workspace.id) in page
    assert str(cast.strange_environment.id) not in page
    for n in range(3):
        create_environment(
            workspace_id=cast.workspace.id,
            name=f"more {n}",
            user_id=cast.owner.id,
            actor=Actor("user", cast.owner.id),
        )
    with counted() as many:
        assert "more 2" in text_of(desk.get(url))
    assert len(many) <= len(few), many


@pytest.fixture
def customer(cast):
    """Gives the cast's owner, workspace, environment and worker words that nothing else has."""
    User.objects.filter(id=cast.owner.id).update(email="ann@customer.example", name="Ann Customer")
    Workspace.objects.filter(id=cast.workspace.id).update(name="Acme Works")
    Environment.objects.filter(id=cast.environment.id).update(name="acme-staging")
    Worker.objects.update(hostname="vm-3.acme.example", label="Build box")
    return cast


FOUND_BY = {
    Environment: (" Ann@Customer.example", "acme-st", "acme works", "vm-3"),
    Membership: ("ann@customer.example", "n@customer", "ann cust", "acme-st", "acme works", "vm-3"),
    Worker: ("ann@customer.example", "vm-3", "build", "acme-st", "acme works"),
    Trigger: ("ann@customer.example", "nightly", "acme-st", "acme works"),
    Workspace: ("ann@customer.example", "acme works"),
    User: ("ann@customer.example", "n@customer", "ann cust"),
}  # fmt: skip


@pytest.fixture
def found(staff):
    """Returns a function that returns the ids of the rows which a search finds. It draws no page."""

    def finding(model, term=""):
        request = RequestFactory().get(list_of(model), {"q": term} if term else None)
        request.user = staff
        shown = site._registry[model].get_changelist_instance(request)
        return [str(row.pk) for row in shown.result_list]

    return finding


def test_what_a_customer_tells_finds_their_rows(found, customer, subtests):
    for model, terms in FOUND_BY.items():
        everything = set(found(model))
        for term in terms:
            with subtests.test(f"{model.__name__} by {term}"):
                rows = set(found(model, term))
                assert rows
                assert rows < everything or len(everything) == 1
        assert found(model, "nobody@customer.example") == []


def test_the_id_finds_each_row_whole_or_by_its_ends(found, stage, subtests):
    for model in site._registry:
        row: Any = model._default_manager.order_by("pk").first()
        if row is None:
            continue
        whole = str(row.pk)
        with subtests.test(model.__name__):
            assert found(model, whole) == [whole]
            # The last one is what a list shows.
            for part in (whole[:8], f" {whole[:13].upper()} ", whole[-8:], f"…{whole[-8:]}"):
                assert whole in found(model, part), part


def test_the_beginning_of_an_id_is_found_by_the_primary_key_beside_any_filter(desk, cast):
    runs = Runs.of(cast)
    run_id = str(runs.ended())
    add_copies(Run, UUID(run_id), 3000)
    prefer_indexes()
    sent = {"q": run_id[:8], "environment": str(cast.environment.id), "status__exact": "succeeded"}
    with explained("SELECT") as plans:
        assert ids_in(desk.get(list_of(Run), sent)) == [run_id]
    assert plans.rows_read("run") < 10
    assert ids_in(desk.get(list_of(Run), {**sent, "status__exact": "failed"})) == []
    named = cast.add_trigger(name="of deadbeef")
    assert ids_in(desk.get(list_of(Trigger), {"q": "deadbeef"})) == [str(named)]
    for term in ("ffffffff", "00000000", "e677d21f"):
        assert ids_in(desk.get(list_of(AuditEntry), {"q": term})) == [], "no calendar has the time"


def test_an_address_is_found_however_old_its_account_is(desk, cast, monkeypatch):
    for _ in range(3):
        UserFactory.create()
    monkeypatch.setattr(site._registry[User], "looks_through", 1)
    assert ids_in(desk.get(list_of(User), {"q": cast.owner.email})) == [str(cast.owner.id)]
    assert ids_in(desk.get(list_of(User), {"q": cast.owner.email[:-1]})) == []


def test_staff_find_rows_by_each_text_that_the_api_filters_by():
    admins = {model.__name__: admin for model, admin in site._registry.items()}
    operations: Any = [operation_of_action(*route.key) for route in ROUTES]
    for operation in operations:
        for name, declared in (operation.filters.base_filters if operation.filters else {}).items():
            # A filter with a method has no column of its own.
            if isinstance(declared, TextFilter) and not declared.method:
                items = operation.items.__name__.removeprefix("Listed")
                admin: Any = admins[items.removesuffix("Serializer")]
                assert declared.field_name in admin.search_fields, (
                    f"{type(admin).__module__}.{type(admin).__name__}.search_fields lacks the column of"
                    f" ?{name}: see A filter in CONTRIBUTING.md"
                )


def test_runs_and_ticks_are_narrowed_to_days(desk, cast, monkeypatch):
    runs = Runs.of(cast)
    old = str(runs.ended())
    runs.wait(days=2)
    new = str(runs.ended())
    monkeypatch.setattr(StaffModelAdmin, "looks_through", 1)

    def shown(**sent):
        return ids_in(desk.get(list_of(Run), {"trigger": str(runs.trigger_id), **sent}))

    noon = NOON.date()
    assert shown() == [new]
    assert shown(to=str(noon)) == shown(to=str(noon), status__exact="succeeded") == [old]
    assert shown(**{"from": str(noon + timedelta(days=1))}) == [new]
    assert shown(to="tomorrow") == shown(to="9999-12-31") == shown(to="2026-02-30") == []
    # Without a trigger, an environment or a worker, the times in the ids count.
    tick(cast, runs.trigger_id, Decision.FIRED, run_id=old)
    today = datetime.now(UTC).date()
    yesterday, tomorrow = (str(today + timedelta(days=n)) for n in (-1, 1))
    for model in (Run, Tick):
        assert len(ids_in(desk.get(list_of(model), {"from": yesterday, "to": tomorrow}))) == 1
        assert ids_in(desk.get(list_of(model), {"to": yesterday})) == []
        assert ids_in(desk.get(list_of(model), {"from": str(today + timedelta(days=2))})) == []


def tick(cast, trigger_id, decision, **values):
    """Adds a tick at nine in Berlin."""
    at = datetime(2026, 5, 4, 7, tzinfo=UTC)
    return Tick.objects.create(
        environment=cast.environment,
        trigger_id=trigger_id,
        tick_at=at,
        last_tick_at=at,
        decision=decision,
        **values,
    )


def test_the_list_of_runs_shows_short_ids_places_and_errors(desk, cast):
    run_id = Runs.of(cast).lost()
    page = text_of(desk.get(list_of(Run)))
    for shown in (
        f'<code title="{run_id}">…{str(run_id)[-8:]}</code>',
        page_of(Environment, cast.environment.id),
        page_of(Worker, cast.worker.worker_id),
        "worker lost: no heartbeat",
    ):
        assert shown in page


LATE, FAILING = {"late_since": NOON}, {"is_failing": True, "failures": 1}


@pytest.mark.parametrize(
    ("word", "judged", "paused_at", "values"),
    [
        ("idle", None, None, {}),
        ("environment paused", {}, NOON, {}),
        ("failing", {**LATE, **FAILING}, NOON, {}),
        ("paused", FAILING, None, {"enabled": False}),
        ("deleted", None, None, {"enabled": False, "deleted_at": NOON}),
    ],
)
def test_a_trigger_has_one_state_which_is_the_worst(desk, cast, word, judged, paused_at, values):
    trigger_id = cast.add_trigger()
    Trigger.objects.filter(id=trigger_id).update(name="Judged", **values)
    Environment.objects.filter(id=cast.environment.id).update(paused_at=paused_at)
    if judged is not None:
        health = {"environment": cast.environment, "has_outcome": True, **judged}
        TriggerHealth.objects.create(trigger_id=trigger_id, **health)
    page = text_of(desk.get(page_of(Trigger, trigger_id)))
    assert re.search(rf'<label>State:</label> <div class="readonly">{word}</div>', page)
    listed = text_of(desk.get(list_of(Trigger), {"q": str(trigger_id)}))
    assert f'<td class="field-state">{word}</td>' in listed


def test_a_queued_runs_page_says_what_it_waits_for_and_what_to_do(desk, cast):
    runs = Runs.of(cast, **BERLIN)
    Worker.objects.update(disabled_at=NOON)
    page = text_of(desk.get(page_of(Run, runs.queue())))
    for told in (
        "worker disabled",
        f"worker {link_to(Worker, cast.worker.worker_id, 'host-1')}",
        "2026-05-04 12:00:00 UTC<br>2026-05-04 14:00:00 CEST</time>",
    ):
        assert told in page, told


def test_the_pages_of_held_and_ended_runs_say_who_holds_them_and_whether_a_retry_follows(
    desk, cast
):
    runs = Runs.of(cast)
    lost = runs.lost()
    retry = runs.retry_of(lost)
    assert retry is not None
    page = text_of(desk.get(page_of(Run, lost)))
    for told in ("because its machine fell silent", "infra fault", str(link_to(Run, retry["id"]))):
        assert told in page, told
    failed = runs.ended(
        "failed", errorMessage="Error: it broke", faultClass="client", output={"sky": "grey"}
    )
    page = text_of(desk.get(page_of(Run, failed)))
    assert "Error: it broke" in page
    assert "&quot;sky&quot;: &quot;grey&quot;" in page
    assert "Last heartbeat" in text_of(desk.get(page_of(Run, runs.running())))


def test_a_triggers_page_tells_of_its_last_due_time_and_of_any_other(desk, cast):
    trigger_id = cast.add_trigger(**BERLIN)
    Trigger.objects.filter(id=trigger_id).update(
        created_at=NOON - timedelta(days=9),
        next_run_at=datetime(2126, 1, 1, tzinfo=UTC),
    )
    run_id = Runs.of(cast).running()
    tick(cast, trigger_id, Decision.SKIPPED_OVERLAP, blocked_by_id=run_id)
    url = page_of(Trigger, trigger_id)
    page = text_of(desk.get(url, {"at": "2026-05-04T09:00"}))
    assert "2026-05-04 07:00 UTC (09:00 in Europe/Berlin) was due and made no run" in page
    assert str(link_to(Run, run_id)) in page
    assert 'value="2026-05-04T09:00"' in page
    assert "Ask about another time in Europe/Berlin" in page
    assert "2026-05-04 07:00:00 UTC<br>2026-05-04 09:00:00 CEST" in page
    page = text_of(desk.get(url, {"at": "2026-01-01T09:00"}))
    assert "The trigger was made later" in page
    assert "not scheduled" not in page, "it has a schedule"
    for bad in ("nine", "0001-01-01T00:00", "9999-12-31T23:59"):
        assert "no time that can be asked about" in text_of(desk.get(url, {"at": bad}))
    listed = text_of(desk.get(list_of(Tick, trigger=trigger_id)))
    assert "an earlier run of the trigger had not ended" in listed
    assert str(link_to(Run, run_id)) in listed


def test_events_are_shown_when_staff_ask_and_each_look_is_audited(desk, cast, monkeypatch):
    monkeypatch.setattr(answers, "_SHOWN", 2)
    run = Runs.of(cast, record_events="always").running()
    page = page_of(Run, run)
    looked = AuditEntry.objects.filter(target_id=run, action="run.events-read")
    assert "because its machine has sent none" in html.unescape(text_of(desk.get(page)))
    WorkerCalls(cast.worker).events(run, 1, 2, 3, text="<b>A planted text</b>")
    shown = text_of(desk.get(page))
    assert "Show the 3 events" in shown
    assert "planted text" not in shown
    assert not looked.exists()
    shown = text_of(desk.get(page, {"events": "0"}))
    assert shown.count("&lt;b&gt;A planted text") == 2
    assert '?events=2"' in shown
    for sent, count in (("2", 1), ("x", 2)):
        assert text_of(desk.get(page, {"events": sent})).count("A planted text") == count
    told = looked.order_by("id").values_list("actor_type", "metadata")
    assert list(told) == [("staff", {"after": n}) for n in (0, 2, 0)]

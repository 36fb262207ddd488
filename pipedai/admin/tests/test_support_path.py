"""Staff find a customer's rows by what the customer tells them, and pages say why something has not run (SPEC §13)."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import User
from pipedai.admin import change_list
from pipedai.admin.site import site
from pipedai.admin.tests.test_pages import ids_in, text_of
from pipedai.admin.values import link_to, list_of, page_of
from pipedai.events import Actor
from testing.probes.statement_count import counted
from testing.world.runs import NOON, Runs
from testing.world.users import UserFactory
from triggers.models import Run, Tick, Trigger, TriggerHealth
from triggers.states import Decision
from workers.models import Worker
from workspaces.models import Environment, Membership, Workspace
from workspaces.services import create_environment

BERLIN = {"schedule": "0 9 * * *", "timezone": "Europe/Berlin"}


def add_ticks(cast, trigger_id, *decisions, **values):
    """Adds ticks of the last days at nine in Berlin, the newest first. A fired one makes no run of its own."""
    for n, decision in enumerate(decisions):
        at = datetime(2026, 5, 4, 7, tzinfo=UTC) - timedelta(days=n)
        Tick.objects.create(
            environment=cast.environment,
            trigger_id=trigger_id,
            tick_at=at,
            last_tick_at=at,
            decision=decision,
            **values,
        )


def test_a_users_page_leads_to_what_their_environments_hold(desk, cast):
    page = text_of(desk.get(page_of(User, cast.owner.id)))
    for model in (Trigger, Run, Worker):
        assert f'href="{list_of(model, environment=cast.environment.id)}"' in page
    assert page_of(Environment, cast.environment.id) in page
    assert page_of(Workspace, cast.workspace.id) in page
    assert str(cast.strange_environment.id) not in page


def test_a_user_without_memberships_is_shown_so(desk, staff):
    assert "No environment." in text_of(desk.get(page_of(User, staff.id)))


def test_a_users_page_costs_the_same_for_many_environments(desk, cast):
    url = page_of(User, cast.owner.id)
    desk.get(url)
    with counted() as few:
        desk.get(url)
    for n in range(3):
        create_environment(
            workspace_id=cast.workspace.id,
            name=f"more {n}",
            user_id=cast.owner.id,
            actor=Actor("user", cast.owner.id),
        )
    with counted() as many:
        assert "more 2" in text_of(desk.get(url))
    assert len(many) == len(few), many


@pytest.fixture
def customer(cast):
    """Gives the cast's owner, workspace, environment and worker words that nothing else has."""
    User.objects.filter(id=cast.owner.id).update(email="ann@customer.example", name="Ann Customer")
    Workspace.objects.filter(id=cast.workspace.id).update(name="Acme Works")
    Environment.objects.filter(id=cast.environment.id).update(name="acme-staging")
    Worker.objects.update(hostname="vm-3.acme.example", label="Build box")
    return cast


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        (Environment, (" Ann@Customer.example", "acme-st", "acme works", "vm-3")),
        (
            Membership,
            ("ann@customer.example", "n@customer", "ann cust", "acme-st", "acme works", "vm-3"),
        ),
        (Worker, ("ann@customer.example", "vm-3", "build", "acme-st", "acme works")),
        (Trigger, ("ann@customer.example", "nightly", "acme-st", "acme works")),
        (Workspace, ("ann@customer.example", "acme works")),
        (User, ("ann@customer.example", "n@customer", "ann cust")),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_a_customer_tells_finds_their_rows(desk, customer, model, terms):
    everything = set(ids_in(desk.get(list_of(model))))
    for term in terms:
        found = set(ids_in(desk.get(list_of(model), {"q": term})))
        assert found, term
        assert found < everything or len(everything) == 1, term
    assert ids_in(desk.get(list_of(model), {"q": "nobody@customer.example"})) == []


def test_an_address_is_found_however_old_its_account_is(desk, cast, monkeypatch):
    for _ in range(3):
        UserFactory.create()
    monkeypatch.setattr(site._registry[User], "looks_through", 1)
    assert ids_in(desk.get(list_of(User), {"q": cast.owner.email})) == [str(cast.owner.id)]
    assert ids_in(desk.get(list_of(User), {"q": cast.owner.email[:-1]})) == []


def test_runs_are_narrowed_to_days_by_their_index(desk, cast, monkeypatch):
    runs = Runs.of(cast)
    old = str(runs.ended())
    runs.wait(days=2)
    new = str(runs.ended())
    monkeypatch.setattr(change_list, "LOOKS_THROUGH", 1)

    def shown(**sent):
        return ids_in(desk.get(list_of(Run), {"trigger": str(runs.trigger_id), **sent}))

    noon = NOON.date()
    assert shown(to=str(noon)) == [old]
    assert shown(**{"from": str(noon + timedelta(days=1))}) == [new]
    assert shown(**{"from": str(noon), "to": str(noon + timedelta(days=2))}) == [new, old]
    assert shown(to=str(noon), status="succeeded") == [old]
    assert shown(to="tomorrow") == shown(to="9999-12-31") == shown(to="2026-02-30") == []


def test_all_runs_and_ticks_are_narrowed_to_the_days_that_their_ids_tell(desk, cast):
    run_id = Runs.of(cast).queue()
    add_ticks(cast, cast.trigger_id, Decision.FIRED, run_id=run_id)
    today = datetime.now(UTC).date()
    yesterday, tomorrow = (str(today + timedelta(days=n)) for n in (-1, 1))
    for model in (Run, Tick):
        assert len(ids_in(desk.get(list_of(model), {"from": yesterday, "to": tomorrow}))) == 1
        assert ids_in(desk.get(list_of(model), {"to": yesterday})) == []
        assert ids_in(desk.get(list_of(model), {"from": str(today + timedelta(days=2))})) == []


def test_the_list_of_runs_shows_short_ids_places_and_errors(desk, cast):
    run_id = Runs.of(cast).lost()
    page = text_of(desk.get(list_of(Run)))
    assert f'<span class="staff-id" title="{run_id}">…{str(run_id)[-8:]}</span>' in page
    assert f'data-id="{run_id}"' in page, "a button copies the whole id"
    for shown in (
        page_of(Environment, cast.environment.id),
        page_of(Worker, cast.worker.worker_id),
        "worker lost: no heartbeat",
    ):
        assert shown in page


def test_the_list_of_triggers_shows_how_the_newest_run_went(desk, cast):
    runs = Runs.of(cast)
    runs.ended()
    runs.wait(minutes=1)
    newest = runs.ended("timed_out")
    page = text_of(desk.get(list_of(Trigger)))
    assert f'{page_of(Run, newest)}"><span class="staff-state staff-state-timed_out">' in page


LATE, FAILING = {"late_since": NOON}, {"is_failing": True, "failures": 1}


@pytest.mark.parametrize(
    ("word", "judged", "paused_at", "values"),
    [
        ("idle", None, None, {}),
        ("ok", {}, None, {}),
        ("paused", {}, NOON, {}),
        ("late", LATE, NOON, {}),
        ("failing", {**LATE, **FAILING}, NOON, {}),
        ("disabled", FAILING, None, {"enabled": False}),
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
    shown = f'<span class="staff-state staff-state-{word}">{word}</span>'
    page = text_of(desk.get(page_of(Trigger, trigger_id)))
    facts = page.partition("<h2>Trigger</h2>")[2].partition("</section>")[0]
    assert f"<dt>State</dt><dd>{shown}</dd>" in facts
    assert facts.count('class="staff-state ') == 1
    assert shown in text_of(desk.get(list_of(Trigger), {"q": str(trigger_id)}))


def test_a_queued_runs_page_says_what_it_waits_for_and_what_to_do(desk, cast):
    runs = Runs.of(cast, **BERLIN)
    Worker.objects.update(disabled_at=NOON)
    page = text_of(desk.get(page_of(Run, runs.queue())))
    for told in (
        "What it waits for",
        "worker disabled",
        f"worker {link_to(Worker, cast.worker.worker_id, 'host-1')}",
        "<span>2026-05-04</span> <span>12:00:00 UTC</span></time>",
        "<span>14:00:00 CEST</span>",
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
    assert "because its worker was lost" in page
    assert "due: infra fault" in page
    assert f"<dt>The retry</dt><dd>{link_to(Run, retry['id'])}</dd>" in page
    held = text_of(desk.get(page_of(Run, runs.running())))
    assert "Last heartbeat" in held


def test_a_triggers_page_tells_of_its_last_due_time_and_of_any_other(desk, cast):
    trigger_id = cast.add_trigger(**BERLIN)
    Trigger.objects.filter(id=trigger_id).update(
        created_at=NOON - timedelta(days=9),
        next_run_at=datetime(2126, 1, 1, tzinfo=UTC),
    )
    add_ticks(cast, trigger_id, Decision.SKIPPED_OVERLAP)
    url = page_of(Trigger, trigger_id)
    page = text_of(desk.get(url, {"at": "2026-05-04T09:00"}))
    assert "2026-05-04 07:00 UTC (09:00 in Europe/Berlin) was due and made no run" in page
    assert 'value="2026-05-04T09:00"' in page
    assert "Ask about another time in Europe/Berlin" in page
    page = text_of(desk.get(url, {"at": "2026-01-01T09:00"}))
    assert "The trigger was made later" in page
    assert "not scheduled" not in page, "it has a schedule"
    for bad in ("nine", "0001-01-01T00:00", "9999-12-31T23:59"):
        assert "no time that can be asked about" in text_of(desk.get(url, {"at": bad}))


def test_a_triggers_page_has_its_newest_ticks_with_their_reasons_in_both_zones(desk, cast):
    runs = Runs.of(cast, **BERLIN)
    url = page_of(Trigger, runs.trigger_id)
    add_ticks(cast, runs.trigger_id, Decision.FIRED, run_id=runs.lost())
    desk.get(url)
    with counted() as few:
        desk.get(url)
    skipped = [each for each in Decision if each is not Decision.FIRED]
    Tick.objects.bulk_create(
        Tick(
            environment=cast.environment,
            trigger_id=runs.trigger_id,
            tick_at=NOON - timedelta(days=n),
            last_tick_at=NOON - timedelta(days=n),
            decision=skipped[n % len(skipped)],
            missed_count=0 if skipped[n % len(skipped)] == Decision.SKIPPED_OVERLAP else 2,
        )
        for n in range(1, 61)
    )
    with counted() as many:
        page = text_of(desk.get(url))
    assert len(many) == len(few), many
    assert page.count('data-label="What became of it"') == 50
    for told in (
        "An earlier run of the trigger was unfinished",
        "No scheduler was running",
        "The trigger had neither a worker nor a pool.",
        "worker lost: no heartbeat",
        "2 due times",
        "<span>09:00:00 CEST</span>",
    ):
        assert told in page, told


def test_a_ticks_page_says_why_it_made_no_run(desk, cast):
    run_id = Runs.of(cast).running()
    add_ticks(cast, cast.trigger_id, Decision.SKIPPED_OVERLAP, blocked_by_id=run_id)
    tick = Tick.objects.get()
    for url in (page_of(Tick, tick.id), page_of(Trigger, cast.trigger_id)):
        page = text_of(desk.get(url))
        assert "An earlier run of the trigger was unfinished" in page
        assert page_of(Run, run_id) in page
        assert "Due times without a run" not in page, "the row stands for one due time"

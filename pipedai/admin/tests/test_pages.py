"""Each model's list and page show what they should, hide secrets, need few queries, and link to other pages."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.apps import apps
from django.db import models

from accounts.models import User
from audit.models import AuditEntry
from pipedai.admin import change_list
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.site import site
from pipedai.admin.tests.conftest import log_in
from pipedai.admin.values import list_of, page_of
from pipedai.api import tokens
from pipedai.ids import new_id
from pipedai.version import VERSION
from testing.probes.statement_count import counted
from testing.world.busy_day import make_busy_day
from testing.world.cast import issue_enrollment
from testing.world.connections import add_oauth_connection, lose_connection
from testing.world.runs import Runs
from triggers.models import Delivery, DeliveryAttempt, Run, Trigger
from workers.models import Enrollment, Worker
from workspaces.models import ApiKey, Connection, Environment, Membership, Workspace

RUNS = "/admin/triggers/run/"
TIME_WITHOUT_ZONE = re.compile(r"\d\d:\d\d:\d\d</span></time>")
AUDIT = "/admin/audit/auditentry/"
# These models have no pages of their own, because their rows are shown on the pages of other rows. Worker events are
# kept for an hour only, and the audit log has the same for ever. A silence becomes an incident within seconds, and
# an untold outcome becomes notices. An authorization counts for ten minutes, and what a revocation sends is secret.
PARTS = {
    "AccountMailAttempt", "Authenticator", "RecoveryCode", "RunText", "RunResult", "TriggerHealth", "DeliveryAttempt",
    "IdempotencyKey", "PoolMember", "RunEventLog", "RunEventBatch", "RunEventDay", "EnvironmentWatch",
    "Listener", "EventDecision", "EventKey",
    "WorkerEvent", "WorkerSilence", "NoticeAttempt", "AskedAddress", "RefusedAddress", "BudgetWindow", "RunReservation",
    "UntoldOutcome",
    "Authorization", "Revocation", "RevocationAttempt",
}  # fmt: skip


@pytest.fixture
def story(cast):
    """Fills a busy day, and returns the id of the run that has the most on its page."""
    return make_busy_day(cast)


def text_of(answer) -> str:
    assert answer.status_code == 200, answer
    return re.sub(r"\s+", " ", answer.content.decode())


def ids_in(answer) -> list[str]:
    """Returns the ids of the rows that a list shows, in order."""
    return [str(row.pk) for row in answer.context["cl"].result_list]


def test_every_model_of_ours_has_a_page(db):
    ours = {
        model.__name__
        for model in apps.get_models()
        if model._meta.app_label
        in {"accounts", "workspaces", "triggers", "workers", "notices", "audit"}
    }
    assert ours - {model.__name__ for model in site._registry} == PARTS


def test_each_list_and_page_opens_reads_no_secret_and_offers_no_adding_or_deleting(
    desk, cast, story, subtests
):
    # All are opened before the first message of an action, which is kept in the session.
    for act in (open_list_and_page, try_to_add_change_or_delete):
        for model in site._registry:
            with subtests.test(f"{act.__name__}: {model.__name__}"):
                act(model, desk)


def open_list_and_page(model, desk):
    answer = text_read_without_secrets(desk, list_of(model))
    assert "/add/" not in answer
    assert not TIME_WITHOUT_ZONE.search(answer)
    row = model._default_manager.order_by("pk").last()
    if row is not None:
        page = text_read_without_secrets(desk, page_of(model, row.pk))
        assert str(row.pk) in page
        assert not TIME_WITHOUT_ZONE.search(page)


def try_to_add_change_or_delete(model, desk):
    row = model._default_manager.order_by("pk").last()
    if row is not None:
        assert desk.get(f"{page_of(model, row.pk)}delete/").status_code == 302
        assert desk.post(page_of(model, row.pk), {"status": "failed"}).status_code in (200, 405)
        row.refresh_from_db()
        assert desk.get(f"{page_of(model, row.pk)}change/")["Location"] == page_of(model, row.pk)
    assert desk.get(f"{list_of(model)}add/").status_code == 404
    assert desk.get(page_of(model, new_id())).status_code == 302
    assert desk.get(f"{list_of(model)}nonsense/").status_code == 404


def undeclared(row, using=None, fields=None, from_queryset=None):
    raise AssertionError(
        f"{type(row).__name__}.{fields} is shown, but a field of the admin does not declare it."
    )


def text_read_without_secrets(desk, url) -> str:
    """Returns the text of a page, and asserts that its statements read no sealed value and no digest, and that its
    query loads all columns that it shows. Django would load another by a statement for each row.
    """
    secret = {
        f'"{model._meta.db_table}"."{field.column}"'
        for model in apps.get_models()
        for field in model._meta.local_fields
        if isinstance(field, models.BinaryField)
    }
    with counted() as statements, pytest.MonkeyPatch.context() as patched:
        patched.setattr(models.Model, "refresh_from_db", undeclared)
        answer = desk.get(url)
    for sql in statements.sql:
        # A query may test whether the column has a value.
        read = re.sub(r'"\w+"\."\w+" IS NOT NULL', "", sql.partition(" FROM ")[0])
        assert not [column for column in secret if column in read], url
    return text_of(answer)


def test_secrets_are_on_no_page(desk, cast):
    host, (enrollment, code) = cast.host(), issue_enrollment(cast.environment, cast.owner)
    token = cast.mint("pwk")
    header, secret = "Bearer planted-header-of-this-test", "planted-webhook-secret"
    trigger_id = cast.add_trigger(
        mcp_headers={"Authorization": header},
        webhook_url="https://hooks.example/done?key=planted-query",
        webhook_secret=secret,
        mcp_url="https://mcp.example/v1#planted-query",
    )
    key = ApiKey.objects.get(token_digest=tokens.digest(token))
    host_key = ApiKey.objects.get(kind="hos")
    planted = (
        header, secret, token, token[:-10], "planted-query", key.token_digest.hex(),
        code, code[:-10], enrollment.code_digest.hex(),
        host.operator_token, host.worker_token, host_key.token_digest.hex(),
    )  # fmt: skip
    rows = (
        (Trigger, trigger_id), (ApiKey, key.id), (ApiKey, host_key.id), (Enrollment, enrollment.id),
        (Worker, host.worker_id),
    )  # fmt: skip
    for model, row_id in rows:
        for url in (page_of(model, row_id), list_of(model)):
            page = text_of(desk.get(url))
            assert not [each for each in planted if each in page]


def test_a_runs_page_tells_its_whole_story_from_the_first_attempt(desk, story):
    page = text_of(desk.get(page_of(Run, story)))
    retry = Run.objects.get(retry_of_id=story)
    for told in (
        "Timeline",
        "Claimed",
        "Ended: failed, by lease",
        "worker lost",
        str(retry.id),
        "ReadTimeout",
        "204",
        "run.lost",
        "yesterday",
    ):
        assert told in page, told
    assert "&quot;since&quot;" not in page, "the payload is a table"
    assert str(story) in text_of(desk.get(page_of(Run, retry.id))), "the first attempt is told too"


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ({"status": "failed", "errorMessage": "Error: it broke\n  at main"}, "Error: it broke at main"),
        ({"status": "timed_out", "shortMessage": "It took too long."}, "It took too long."),
        ({"status": "succeeded", "shortMessage": "All is well."}, ""),
    ],
    ids=lambda each: each["status"] if isinstance(each, dict) else "",
)  # fmt: skip
def test_a_runs_first_box_has_its_error(desk, cast, outcome, told):
    page = text_of(desk.get(page_of(Run, Runs.of(cast).ended(**outcome))))
    first_box = page.partition("Where it stands, and why")[2].partition("</section>")[0]
    error = f'<dt>Error</dt><dd><pre class="staff-text">{told}</pre></dd>'
    assert (error in first_box) is bool(told)
    assert page.count("<dt>Error</dt>") == bool(told)


def test_a_runs_page_tells_what_it_did_and_why_it_is_not_retried(desk, cast):
    runs = Runs.of(cast, retry_after_effects=False, output_schema={"title": "Weather"})
    counts = {"total": 1200, "effects": 1, "unknown": 0}
    call = {
        "at": "2026-05-04T12:00:01Z",
        "tool": "send_mail",
        "outcome": "ok",
        "effect": "possible",
    }
    run_id = runs.ended(
        "failed", faultClass="infra", toolCalls=counts, toolCallList=[call], output={"sky": "grey"}
    )
    page = text_of(desk.get(page_of(Run, run_id)))
    for told in (
        "1,200, of these 1 with a possible effect and 0 without an answer",
        "it is not retried, because its tool calls may have changed something",
        "send_mail",
        "grey",
    ):
        assert told in page, told
    trigger = text_of(desk.get(page_of(Trigger, runs.trigger_id)))
    assert "Retries after effects" in trigger
    assert "Weather" in trigger


def test_what_customers_wrote_is_text_and_no_markup(desk, cast):
    evil = """'"><script>alert(1)</script>"""
    runs = Runs.of(cast, name=evil, prompt=evil, description=evil)
    call = {"at": "2026-05-04T12:00:01Z", "tool": evil, "outcome": "ok", "effect": "none"}
    run_id = runs.ended(
        "failed",
        errorMessage=evil,
        payload={evil: evil},
        shortMessage=evil,
        output={evil: evil},
        toolCallList=[call],
    )
    queued = runs.queue()
    Worker.objects.update(label=evil, hostname=evil)
    for model in (User, Environment, Workspace):
        model.objects.filter(id__in=(cast.owner.id, cast.environment.id, cast.workspace.id)).update(
            name=evil
        )
    rows = {
        Run: (run_id, queued),
        Trigger: (runs.trigger_id,),
        Worker: (cast.worker.worker_id,),
        User: (cast.owner.id,),
        Environment: (cast.environment.id,),
        Workspace: (cast.workspace.id,),
    }
    pages = [page_of(model, row_id) for model, ids in rows.items() for row_id in ids]
    for url in (*pages, *map(list_of, (*rows, Membership)), AUDIT):
        page = desk.get(url).content.decode()
        assert "alert(1)" in page or url == AUDIT, url
        assert "<script>alert(1)" not in page, url


def test_pages_follow_each_other_by_keyset_while_runs_come_in(desk, cast):
    runs = Runs.of(cast)
    made = [str(runs.queue()) for _ in range(60)]
    for filters in ("", f"?environment={cast.environment.id}"):
        first = desk.get(RUNS + filters)
        newest = Runs.of(cast).queue()
        second = desk.get(RUNS + first.context["cl"].older_url)
        seen = [*ids_in(first), *ids_in(second)]
        assert str(newest) not in ids_in(second)
        assert [each for each in reversed(seen) if each in made] == made
        assert second.context["cl"].older_url == ""


@pytest.mark.parametrize(
    "after", ["x", "2020-01-01", "2020-01-01T00:00:00,zz", "0001-01-01T00:00:00+23:59,x"]
)
def test_a_place_that_is_none_is_the_first_page(desk, cast, after):
    assert desk.get(RUNS, {"after": after}).status_code == 200
    assert (
        desk.get(RUNS, {"after": after, "environment": str(cast.environment.id)}).status_code == 200
    )


def test_a_filter_without_an_index_looks_through_so_many_rows_and_goes_on(desk, cast, monkeypatch):
    runs = Runs.of(cast)
    wanted = str(runs.ended("timed_out"))
    for _ in range(11):
        runs.ended("succeeded")
    monkeypatch.setattr(change_list, "LOOKS_THROUGH", 5)
    found, url, looks = [], f"{RUNS}?status=timed_out", 0
    while url:
        answer = desk.get(url)
        found += ids_in(answer)
        looks += 1
        older = answer.context["cl"].older_url
        url = RUNS + older if older else ""
    assert found == [wanted]
    assert looks == 3
    assert "Looked through 5 rows" in text_of(desk.get(f"{RUNS}?status=timed_out"))


def test_no_list_counts_its_rows_for_its_filters(desk, cast):
    Runs.of(cast).ended("succeeded")
    with counted() as statements:
        answer = desk.get(RUNS, {"status": "succeeded", "_facets": "True"})
    assert "Show counts" not in text_of(answer)
    assert "count(" not in str(statements).lower()


@pytest.mark.parametrize("of", ["environment", "trigger", "worker"])
def test_ended_runs_of_a_state_are_found_at_once_where_an_index_knows_them(
    desk, cast, monkeypatch, of
):
    runs = Runs.of(cast)
    wanted = str(runs.ended("timed_out"))
    for _ in range(8):
        runs.ended("succeeded")
    monkeypatch.setattr(change_list, "LOOKS_THROUGH", 5)
    ids = {
        "environment": cast.environment.id,
        "trigger": runs.trigger_id,
        "worker": cast.worker.worker_id,
    }
    assert ids_in(desk.get(RUNS, {"status": "timed_out", of: str(ids[of])})) == [wanted]


def test_unfinished_runs_of_a_state_are_found_at_once_anywhere(desk, cast, monkeypatch):
    runs = Runs.of(cast)
    wanted = {"queued": str(runs.queue())}
    for _ in range(8):
        runs.ended("succeeded")
    wanted["running"] = str(runs.running())
    for _ in range(8):
        runs.cancel(runs.queue())
    monkeypatch.setattr(change_list, "LOOKS_THROUGH", 5)
    for status, run_id in wanted.items():
        assert ids_in(desk.get(RUNS, {"status": status})) == [run_id]
        assert ids_in(desk.get(RUNS, {"status": status, "worker": str(cast.worker.worker_id)})) == [
            run_id
        ]


def test_the_search_finds_an_id_and_names(desk, cast, story):
    assert ids_in(desk.get(RUNS, {"q": str(story)})) == [str(story)]
    assert ids_in(desk.get(RUNS, {"q": "words"})) == []
    assert ids_in(desk.get(list_of(User), {"q": cast.owner.email.upper()})) == [str(cast.owner.id)]
    assert ids_in(desk.get(list_of(Worker), {"q": "host"})) == [str(cast.worker.worker_id)]


def test_a_key_that_has_expired_is_shown_so(desk, cast):
    cast.mint("pwk")
    ApiKey.objects.update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert 'staff-state-expired">expired' in text_of(desk.get(list_of(ApiKey)))


def test_a_login_that_failed_has_no_actor_but_its_kind(desk, door):
    log_in(door, password="wrong")
    entry = AuditEntry.objects.get(action="user.login-failed")
    assert "staff staff" not in text_of(desk.get(page_of(AuditEntry, entry.id)))


@pytest.mark.parametrize("sent", ["s=user&page=x", "s=user&page=99"])
def test_a_page_of_search_results_that_is_none_is_not_found(desk, sent):
    assert desk.get(f"/admin/search/?{sent}").status_code == 404


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        (User, "password__startswith=argon2"),
        (User, "is_staff__exact=1&password__regex=."),
        (User, "email__startswith=s"),
        (ApiKey, "token_digest__gt=a"),
        (ApiKey, "last_four=abcd"),
        (Trigger, "webhook_secret__isnull=0"),
        (Trigger, "mcp_url__contains=key"),
        (Run, "status=%00"),
        (ApiKey, "kind__exact=%00"),
        (AuditEntry, "action=%00"),
    ],
)
def test_nothing_but_a_lists_own_filters_narrows_it(desk, cast, model, sent):
    answer = desk.get(f"{list_of(model)}?{sent}")
    assert (answer.status_code, answer.headers.get("Location")) == (302, f"{list_of(model)}?e=1")


def test_filters_by_another_row_take_its_id(desk, cast, story):
    sent = {"environment": str(cast.strange_environment.id)}
    assert ids_in(desk.get(RUNS, sent)) == []
    assert ids_in(desk.get(RUNS, {"environment": "nonsense"})) == []
    assert len(ids_in(desk.get(RUNS, {"worker": str(cast.worker.worker_id)}))) == 50


def test_the_audit_log_is_narrowed_by_what_it_is_asked_for(desk, cast, story):
    def actions(**sent):
        answer = desk.get(AUDIT, sent)
        assert answer.status_code == 200
        return {row.action for row in answer.context["cl"].result_list}

    environment = str(cast.environment.id)
    assert actions(action="run.lost") == {"run.lost"}
    assert actions(environment=environment, target=str(story)) >= {"run.created", "run.lost"}
    assert actions(actor_type="worker") <= {
        "run.claimed",
        "run.started",
        "run.completed",
        "run.canceled",
    }
    assert actions(actor=str(cast.worker.worker_id)) == actions(actor_type="worker")


def test_a_list_costs_the_same_for_one_row_and_for_fifty(desk, cast, subtests):
    models = (Run, Trigger, Delivery, AuditEntry, Worker, ApiKey, Enrollment)
    runs = Runs.of(cast)
    runs.ended()
    few = {}
    for model in models:
        desk.get(list_of(model))
        with counted() as few[model]:
            desk.get(list_of(model))
    for n in range(50):
        cast.add_trigger()
        cast.register(f"machine-{n}")
        cast.mint("pwk")
        issue_enrollment(cast.environment, cast.owner)
        runs.ended()
    for model in models:
        with subtests.test(model.__name__):
            with counted() as many:
                desk.get(list_of(model))
            assert len(many) <= len(few[model]), many
            sent = " ".join(many.sql).upper()
            assert "COUNT(" not in sent
            assert " OFFSET " not in sent


def test_a_runs_page_costs_the_same_for_many_deliveries(desk, cast):
    run_id = Runs.of(cast).ended()
    url = page_of(Run, run_id)
    desk.get(url)
    with counted() as few:
        desk.get(url)
    delivery = Delivery.objects.get(run_id=run_id)
    for _ in range(20):
        delivery.pk = new_id()
        delivery.save(force_insert=True)
        DeliveryAttempt.objects.create(
            environment=cast.environment, delivery=delivery, n=1, at=datetime.now(UTC), status_code=500, duration_ms=3
        )  # fmt: skip
    with counted() as many:
        desk.get(url)
    assert len(many) == len(few)


def test_the_start_page_counts_what_waits_and_draws_the_last_day_and_fortnight(desk, cast, story):
    answer = desk.get("/admin/")
    figures = {each.label: each for each in answer.context["figures"]}
    assert figures["Runs queued"].value == "3"
    assert figures["Oldest queued run"].value.startswith("12 min")
    assert figures["Schedulers alive"].value == "1"
    assert figures["Workers online"].note == "of 1"
    assert figures["Deliveries waiting"].value == str(
        Delivery.objects.filter(status="pending").count()
    )
    hours, days = answer.context["charts"]
    ended = Run.objects.filter(ended_at__gt=datetime.now(UTC) - timedelta(hours=23))
    assert sum(sum(series.values) for series in hours.series) >= ended.count()
    spent = sum(float(run.cost_usd or 0) for run in Run.objects.all())
    assert sum(days.series[0].values) == pytest.approx(spent)
    assert "staff-bar-succeeded" in text_of(answer)


def test_an_empty_house_has_a_start_page(desk):
    page = text_of(desk.get("/admin/"))
    assert "No run has ended in the last 24 hours." in page


def test_the_menu_groups_all_lists_by_what_staff_look_for(desk):
    _, *groups = desk.get("/admin/").context["sidebar_navigation"]
    assert [each["title"] for each in groups] == [
        "Runs", "Triggers", "Machines", "Money", "People", "Webhooks and notices", "Service",
    ]  # fmt: skip
    links = [item["link"] for group in groups for item in group["items"]]
    assert sorted(links) == sorted(map(list_of, site._registry))
    assert all(group["items"] for group in groups)


def test_an_empty_list_says_what_has_not_happened_yet(desk, subtests):
    for model, admin in site._registry.items():
        with subtests.test(model.__name__):
            assert isinstance(admin, StaffModelAdmin)
            page = text_of(desk.get(list_of(model)))
            assert "Create a new item" not in page
            if not model._default_manager.exists():
                assert f"<p>{admin.when_empty}</p>" in page


def test_a_list_without_matches_offers_all_rows(desk, cast, monkeypatch):
    page = text_of(desk.get(f"{RUNS}?q=nothing-of-this"))
    assert "<p>Nothing matches.</p>" in page
    assert '<a class="staff-link" href="?">Show the whole list</a>' in page
    after = "00000000-0000-7000-8000-000000000000"
    page = text_of(desk.get(f"{RUNS}?after={after}&status=running"))
    assert "<p>Nothing older matches.</p>" in page
    Runs.of(cast).running()
    monkeypatch.setattr(change_list, "LOOKS_THROUGH", 1)
    page = text_of(desk.get(f"{RUNS}?q=nothing-of-this"))
    assert "<p>None of the 1 rows that were looked through matches.</p>" in page


def test_the_page_after_the_last_row_says_so(desk, cast):
    page = text_of(desk.get(f"{list_of(Trigger)}?after=00000000-0000-7000-8000-000000000000"))
    assert "<p>There is nothing older.</p>" in page


def test_an_id_of_after_the_end_of_calendars_is_no_audit_entrys(desk):
    path = "/admin/audit/auditentry/ffffffff-ffff-7fff-bfff-ffffffffffff/change/"
    assert desk.get(path).status_code in {302, 404}


@pytest.mark.parametrize("page", ["/admin/", RUNS, "/admin/account/"])
def test_the_footer_tells_the_version(cast, desk, page):
    assert f"PipedAI {VERSION}</footer>" in desk.get(page).content.decode()


def test_a_connection_tells_its_error_first_and_no_secret(cast, desk, watch):
    connection = add_oauth_connection(cast)
    lose_connection(connection)
    error = str(connection.error)
    listed = desk.get("/admin/workspaces/connection/?status__exact=needs_login")
    shown = desk.get(page_of(Connection, connection.id))
    for page in (listed, shown):
        assert error in text_of(page)
        watch.look_at("a page of staff", page.content.decode())
    facts = text_of(shown).replace("_", " ").lower()
    in_order = ("needs login", error.replace("_", " ").lower(), "mcp server")
    assert sorted(in_order, key=facts.index) == list(in_order)

"""Each model's list and page show what they should, hide secrets, change nothing, and stay cheap in a large ledger."""

import re
from datetime import UTC, datetime
from functools import cache

import pytest
from django.apps import apps
from django.db import models

from accounts.models import User
from audit.models import AuditEntry
from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.columns import never_read
from pipedai.admin.site import list_of, page_of, site
from pipedai.admin.tests.conftest import log_in
from pipedai.api import tokens
from pipedai.ids import new_id
from pipedai.server.request_scope import content_policy
from pipedai.version import VERSION
from testing.probes.plans import explained, prefer_indexes
from testing.probes.statement_count import counted
from testing.world.budgets import add_budget
from testing.world.busy_day import make_busy_day
from testing.world.cast import issue_enrollment
from testing.world.connections import add_oauth_connection, lose_connection
from testing.world.copies import add_copies
from testing.world.runs import Runs
from triggers.models import Budget, Delivery, Run, Trigger
from workers.models import Enrollment, Worker
from workspaces.models import ApiKey, Connection, Environment, Membership, Workspace
from workspaces.tenant_columns import sealed_fields

RUNS = "/admin/triggers/run/"
AUDIT = "/admin/audit/auditentry/"
# These models have no pages of their own, because their rows are shown on the pages of other rows. Worker events are
# kept for an hour only, and the audit log has the same for ever. A silence becomes an incident within seconds, and
# an untold outcome becomes notices. An authorization counts for ten minutes, and what a revocation sends is secret.
PARTS = {
    "AccountMailAttempt", "Authenticator", "Identity", "RecoveryCode", "RunText", "RunResult", "TriggerHealth",
    "IdempotencyKey", "PoolMember", "RunEventLog", "RunEventBatch", "RunEventDay", "EnvironmentWatch",
    "DeliveryAttempt", "EventKey", "RefusedRequest",
    "WorkerEvent", "WorkerSilence", "NoticeAttempt", "AskedAddress", "RefusedAddress", "RunReservation",
    "UntoldOutcome",
    "Authorization", "Revocation", "RevocationAttempt",
}  # fmt: skip
# The columns that are no bytes and that nobody is shown.
HIDDEN = {"User": {"password"}, "Session": {"data"}, "Worker": {"account_id"}, "Event": {"body"}}


@pytest.fixture
def story(cast):
    """Fills the first hours of a busy day, and returns the id of the run that has the most on its page."""
    return make_busy_day(cast, hours=4)


def text_of(answer) -> str:
    assert answer.status_code == 200, answer
    return re.sub(r"\s+", " ", answer.content.decode())


def ids_in(answer) -> list[str]:
    """Returns the ids of the rows that a list shows, in order."""
    return [str(row.pk) for row in answer.context["cl"].result_list]


def test_every_model_has_a_page_with_all_columns_but_secrets(db):
    ours = {"accounts", "workspaces", "triggers", "workers", "notices", "audit"}
    models_of_ours = [model for model in apps.get_models() if model._meta.app_label in ours]
    assert {each.__name__ for each in models_of_ours} - {
        model.__name__ for model in site._registry
    } == PARTS
    assert site.check(None) == []
    for model, admin in site._registry.items():
        assert isinstance(admin, StaffModelAdmin)
        assert admin.list_per_page == 50
        columns = {
            field.name: isinstance(field, models.BinaryField)
            for field in model._meta.concrete_fields
        }
        secret = {name for name, is_bytes in columns.items() if is_bytes}
        assert never_read(model) == secret | HIDDEN.get(model.__name__, set()), model
        shown = {getattr(each, "__name__", each) for each in admin._page_columns}
        assert shown >= columns.keys() - never_read(model), model


def test_every_sealed_field_is_a_column_that_no_page_reads(db):
    tables = {model._meta.db_table: model for model in site._registry}
    for field in sealed_fields():
        if field.table in tables:
            assert field.column in never_read(tables[field.table]), field


def test_each_list_and_page_opens_reads_no_secret_and_changes_nothing(desk, cast, story, subtests):
    rows = {model: model._default_manager.order_by("pk").last() for model in site._registry}
    for model, row in rows.items():
        with subtests.test(model.__name__):
            text_read_without_secrets(desk, list_of(model))
            assert desk.get(f"{list_of(model)}add/").status_code == 403
            if row is not None:
                page = page_of(model, row.pk)
                assert str(row.pk) in text_read_without_secrets(desk, page)
                assert desk.post(page, {"status": "failed"}).status_code == 403
                assert desk.post(f"{page.removesuffix('change/')}delete/").status_code == 403
    for model in rows:
        # The message about it is kept in the session, whose key each later page reads.
        assert desk.get(page_of(model, new_id())).status_code == 302


def undeclared(row, using=None, fields=None, from_queryset=None):
    raise AssertionError(
        f"{type(row).__name__}.{fields} is shown, but the admin's query does not read it."
    )


@cache
def secret_columns() -> set[str]:
    return {
        f'"{model._meta.db_table}"."{field.column}"'
        for model in apps.get_models()
        for field in model._meta.local_fields
        if isinstance(field, models.BinaryField)
    }


def text_read_without_secrets(desk, url) -> str:
    """Returns the text of a page, and asserts that its statements read no sealed value and no digest, and that its
    query loads all columns that it shows. Django would load another by a statement for each row.
    """
    secret = secret_columns()
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
    page = re.sub(r"<[^>]+>\s*", "", text_of(desk.get(page_of(Trigger, trigger_id))))
    assert "Has mcp headers:yes" in page


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


def test_a_list_of_a_large_ledger_reads_the_newest_rows_that_an_index_finds(
    desk, cast, monkeypatch
):
    runs = Runs.of(cast)
    wanted = str(runs.ended("timed_out"))
    for _ in range(3):
        runs.ended("succeeded")
    add_copies(Run, runs.ended("succeeded"), 3000)
    monkeypatch.setattr(StaffModelAdmin, "looks_through", 100)
    prefer_indexes()
    of = {
        "environment": cast.environment.id,
        "trigger": runs.trigger_id,
        "worker": cast.worker.worker_id,
    }
    for name, value in {**of, "": None}.items():
        filters = {name: str(value)} if name else {}
        with explained("SELECT") as plans:
            page = desk.get(RUNS, {"status__exact": "succeeded", **filters})
        assert 0 < page.context["cl"].result_count <= 100
        # The place of the last row, the count, and a page of rows.
        assert plans.rows_read("run") < 700, name
        assert "newest 100 rows" in text_of(page)
        assert ids_in(desk.get(RUNS, {"status__exact": "timed_out", **filters})) == []
    # By its own index, or by its day, an old row is found.
    failures = desk.get(RUNS, {"failures": "all"})
    assert ids_in(failures) == [wanted]


def test_unfinished_runs_of_a_state_are_found_at_once_anywhere(desk, cast, monkeypatch):
    runs = Runs.of(cast)
    wanted = {"queued": str(runs.queue()), "running": str(runs.running())}
    for _ in range(8):
        runs.cancel(runs.queue())
    monkeypatch.setattr(StaffModelAdmin, "looks_through", 5)
    for status, run_id in wanted.items():
        assert ids_in(desk.get(RUNS, {"unfinished": status})) == [run_id]


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        (User, "password__startswith=argon2"),
        (User, "is_staff__exact=1&password__regex=."),
        (ApiKey, "token_digest__gt=a"),
        (ApiKey, "last_four=abcd"),
        (Trigger, "webhook_secret__isnull=0"),
        (Trigger, "mcp_url__contains=key"),
        (Run, "unfinished=%00"),
        (ApiKey, "kind__exact=%00"),
    ],
)
def test_nothing_but_a_lists_own_filters_narrows_it(desk, cast, model, sent):
    answer = desk.get(f"{list_of(model)}?{sent}")
    assert (answer.status_code, answer.headers.get("Location")) == (302, f"{list_of(model)}?e=1")


def test_filters_by_another_row_take_its_id(desk, cast, story):
    assert ids_in(desk.get(RUNS, {"environment": str(cast.strange_environment.id)})) == []
    assert ids_in(desk.get(RUNS, {"environment": "nonsense"})) == []
    others = Run.objects.exclude(worker_id=cast.worker.worker_id).count()
    shown = ids_in(desk.get(RUNS, {"worker": str(cast.worker.worker_id)}))
    assert len(shown) == Run.objects.count() - others > 10


def test_the_audit_log_is_narrowed_by_what_it_is_asked_for(desk, cast, story):
    def actions(**sent):
        return {row.action for row in desk.get(AUDIT, sent).context["cl"].result_list}

    environment = str(cast.environment.id)
    assert actions(action="run.lost") == {"run.lost"}
    assert actions(environment=environment, target=str(story)) >= {"run.created", "run.lost"}
    assert actions(actor=str(cast.worker.worker_id)) == actions(actor_type="worker")


def test_a_login_that_failed_has_no_actor_but_its_kind(desk, door):
    log_in(door, password="wrong")
    entry = AuditEntry.objects.get(action="user.login-failed")
    assert "staff staff" not in text_of(desk.get(page_of(AuditEntry, entry.id)))
    unknown = "/admin/audit/auditentry/ffffffff-ffff-7fff-bfff-ffffffffffff/change/"
    assert desk.get(unknown).status_code == 302, "the id is of a time after the end of calendars"


def test_a_list_costs_the_same_for_one_row_and_for_ten(desk, cast, subtests):
    listed = (Run, Trigger, Delivery, AuditEntry, Worker, ApiKey, Enrollment)
    runs = Runs.of(cast)
    runs.ended()
    few = {}
    desk.get(list_of(Run))
    for model in listed:
        with counted() as few[model]:
            desk.get(list_of(model))
    for n in range(9):
        cast.add_trigger()
        cast.register(f"machine-{n}")
        cast.mint("pwk")
        issue_enrollment(cast.environment, cast.owner)
        runs.ended()
    for model in listed:
        with subtests.test(model.__name__), counted() as many:
            desk.get(list_of(model))
        assert len(many) == len(few[model]), many


def test_staff_see_what_of_a_budget_is_spent_reserved_and_left(desk, cast):
    budget = add_budget(cast, limit_usd="10", name="Planted budget")
    runs = Runs.of(cast)
    runs.now = datetime.now(UTC)
    runs.ended(costUsd="2.5")
    page = text_of(desk.get(page_of(Budget, budget.id)))
    for name, usd in (("spent", "$2.50"), ("reserved", "$0"), ("remaining", "$7.50")):
        assert f'<th scope="row">{name}</th><td>{usd}</td>' in page


def test_a_connection_tells_its_error_and_no_secret(cast, desk, watch):
    connection = add_oauth_connection(cast)
    lose_connection(connection)
    listed = desk.get(list_of(Connection, status__exact="needs_login"))
    for page in (listed, desk.get(page_of(Connection, connection.id))):
        assert str(connection.error) in text_of(page)
        watch.look_at("a page of staff", page.content.decode())


@pytest.mark.parametrize("page", ["/admin/", RUNS, "/admin/account/"])
def test_each_page_tells_the_version_and_runs_under_a_strict_policy(cast, desk, page):
    shown = desk.get(page).content.decode()
    assert f"PipedAI {VERSION}</footer>" in shown
    assert "unsafe" not in content_policy(page)
    assert "<style" not in shown
    assert not re.search(r"<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", shown)

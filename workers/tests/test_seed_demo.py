"""`seed_demo` makes the demo once, repairs it where something is missing, and refuses in production."""

import itertools
import json
from datetime import timedelta
from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from accounts.models import User
from accounts.passwords import is_password_of
from accounts.services import log_in
from accounts.sessions import Device
from audit.models import AuditEntry
from pipedai.api import tokens
from pipedai.events import SYSTEM
from testing.processes.racing import at_once
from testing.world.instants import INSTANTS
from triggers.models import Budget, BudgetWindow, Run, RunText, Tick, Trigger
from workers.management.commands import seed_demo
from workers.management.commands.seed_demo import SPENT_USD, Seed
from workers.models import PoolMember, Worker
from workspaces.models import ApiKey, Environment


@pytest.fixture(autouse=True)
def _the_same_passwords(monkeypatch):
    """Lets each demo choose the passwords of the one before, since no test process computes a hash twice."""
    chosen = (f"planted-demo-{number}" for number in itertools.count())
    monkeypatch.setattr(seed_demo, "secrets", SimpleNamespace(token_urlsafe=lambda _: next(chosen)))


@pytest.fixture
def _two_days(monkeypatch):
    """Lets the demo's week be of two days, for tests that ask for nothing of it."""
    monkeypatch.setattr(seed_demo, "_SPAN", timedelta(days=2))


@pytest.fixture
def seed(db, settings, tmp_path):
    """Returns a function that runs the command in a directory of the test's own.

    The function returns the command's output and the content of the two files that it writes.
    """
    settings.DATA_DIR = tmp_path

    def seed(*arguments):
        said = StringIO()
        call_command("seed_demo", *arguments, stdout=said)
        files = [tmp_path / "demo.json", tmp_path / "demo-worker.json"]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600, 0o600]
        demo, worker = (json.loads(file.read_text()) for file in files)
        for secret in (
            demo["password"],
            demo["staffPassword"],
            demo["apiKey"],
            worker["workerToken"],
        ):
            assert secret not in said.getvalue()
        return said.getvalue(), demo, worker

    return seed


def log_in_with(demo):
    return log_in(
        email=demo["email"],
        password=demo["password"],
        replaces=None,
        device=Device(b"", None, ""),
        actor=SYSTEM,
    )


def rows():
    return [model.objects.count() for model in (User, Environment, ApiKey, Worker, Trigger)]


@pytest.mark.usefixtures("_two_days")
def test_it_makes_one_of_everything_that_works_together(seed):
    said, demo, worker = seed()

    assert (
        "Made: user, staff user, workspace, environment, API key, worker, trigger, pool, pool's trigger, budget,"
        " a week of runs, Morning report, Review pull requests, Check the backups." in said
    )
    assert log_in_with(demo)
    staff = User.objects.get(email=demo["staffEmail"])
    assert staff.is_staff
    assert is_password_of(staff, demo["staffPassword"])
    environment = Environment.objects.get(id=demo["environmentId"])
    key = ApiKey.objects.get(token_digest=tokens.digest(demo["apiKey"]))
    assert (key.environment_id, key.kind) == (environment.id, "pwk")
    registered = Worker.objects.get(token_digest=tokens.digest(worker["workerToken"]))
    assert str(registered.id) == worker["workerId"]
    trigger = Trigger.objects.get(id=demo["triggerId"])
    assert (trigger.environment_id, trigger.worker_id) == (environment.id, registered.id)
    assert trigger.mcp_headers
    assert trigger.schedule is None
    of_pool = Trigger.objects.get(pool_id__isnull=False)
    assert of_pool.worker_id is None
    assert of_pool.pool_id is not None
    pools = PoolMember.objects.filter(pool_id=of_pool.pool_id).values_list("worker__hostname")
    assert sorted(pools) == [("demo",), ("demo-spare",)]
    (entry,) = AuditEntry.objects.filter(action="demo.seeded")
    assert entry.environment_id == environment.id
    assert entry.actor_type == "system"


def test_its_week_has_a_failure_that_was_told_and_a_machine_that_something_waits_for(seed):
    _, demo, _ = seed()
    client = Client(headers={"authorization": f"Bearer {demo['apiKey']}"})
    url = f"/api/v1/environments/{demo['environmentId']}"

    items = client.get(f"{url}/attention").json()["items"]
    found = {each["subject"]["name"]: each for each in items}
    assert set(found) == {"Review pull requests", "Spare laptop"}
    assert found["Review pull requests"]["toldTo"]
    (budget,) = client.get(f"{url}/budgets").json()["items"]
    assert float(budget["spentUsd"]) < SPENT_USD + 0.01
    runs = Run.objects.order_by("-queued_at")
    oldest = Run.objects.earliest("queued_at")
    assert runs[0].ended_by == "worker"
    assert RunText.objects.get(run_id=runs[0].id).error_message
    assert runs.filter(status="succeeded").count() > 20
    assert runs[0].queued_at - oldest.queued_at > timedelta(days=6)
    assert Tick.objects.filter(decision="fired").count() == runs.filter(source="schedule").count()
    # The machine that was on a moment ago is not missed yet.
    assert runs.filter(status="queued").get().worker.hostname == "demo-spare"


@pytest.mark.parametrize("instant", INSTANTS)
def test_at_any_instant_each_month_of_its_week_costs_less_than_the_budget(db, tmp_path, instant):
    now = INSTANTS[instant]
    Seed(tmp_path).sow(now=now)
    (budget,) = Budget.objects.all()
    months = list(BudgetWindow.objects.order_by("starts_at"))
    assert abs(float(sum(each.spent_usd for each in months)) - SPENT_USD) < 0.01
    for month in months:
        assert month.spent_usd + month.reserved_usd < budget.limit_usd
        runs = Run.objects.filter(claimed_at__gte=month.starts_at, claimed_at__lt=month.ends_at)
        assert month.spent_usd == sum(run.cost_usd or 0 for run in runs)
    runs = Run.objects.order_by("queued_at")
    assert [run.worker.hostname for run in runs if run.ended_at is None] == ["demo-spare"]
    assert all(run.ended_at < now for run in runs if run.ended_at)
    assert list(runs.values_list("status", flat=True)).count("failed") == 2
    # Two of its triggers are due once a day, and one twice.
    assert runs.filter(source="schedule").count() == Tick.objects.count()
    assert 7 * 4 - 1 <= Tick.objects.count() <= 7 * 4 + 1


@pytest.mark.usefixtures("_two_days")
def test_a_second_time_it_makes_nothing_and_writes_no_audit_row(seed):
    _, *first = seed()
    before, entries = rows(), AuditEntry.objects.count()

    said, *second = seed()

    assert "Made: nothing" in said
    assert second == first
    assert (rows(), AuditEntry.objects.count()) == (before, entries)


@pytest.mark.usefixtures("_two_days")
def test_without_its_file_the_user_gets_a_new_password_and_there_is_a_new_key(seed, tmp_path):
    _, first, worker = seed()
    (tmp_path / "demo.json").unlink()

    said, second, same_worker = seed()

    assert "Made: user's password, staff user's password, API key." in said
    assert log_in_with(second)
    assert second["password"] != first["password"]
    assert second["environmentId"] == first["environmentId"]
    assert second["triggerId"] == first["triggerId"]
    assert same_worker == worker


@pytest.mark.usefixtures("_two_days")
def test_what_was_taken_away_is_made_again(seed):
    _, first, worker = seed()
    ApiKey.objects.filter(kind="pwk").update(revoked_at="2026-01-01T00:00:00Z")
    Worker.objects.filter(hostname="demo").update(token_digest=None)

    said, second, new_worker = seed()

    assert "Made: API key, worker." in said
    assert second["apiKey"] != first["apiKey"]
    assert second["triggerId"] == first["triggerId"]
    assert new_worker["workerId"] == worker["workerId"]
    assert new_worker["workerToken"] != worker["workerToken"]


@pytest.mark.usefixtures("_two_days")
def test_files_of_another_database_do_not_mislead_it(seed, tmp_path):
    (tmp_path / "demo.json").write_text('{"password": 5, "apiKey": null}')
    (tmp_path / "demo-worker.json").write_text("not JSON")

    said, demo, _ = seed()

    assert "Made: user, staff user, workspace" in said
    assert tokens.prefix_of(demo["apiKey"]) == "pwk"


def test_it_is_refused_in_production(seed, settings, tmp_path):
    settings.PRODUCTION = True
    with pytest.raises(CommandError, match="no demo in production"):
        seed()
    assert rows() == [0, 0, 0, 0, 0]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_two_days")
def test_two_at_once_make_one_of_everything(own_database, settings, tmp_path):
    settings.DATA_DIR = tmp_path
    at_once(*[lambda: call_command("seed_demo", stdout=StringIO())] * 2)
    assert rows() == [2, 1, 3, 2, 5]


@pytest.mark.usefixtures("_two_days")
def test_a_trigger_that_files_describe_stays_at_its_mcp_server(seed):
    seed()
    Trigger.objects.update(managed_by="acme/agents")
    seed("--mcp-url", "http://127.0.0.1:9/mcp")
    assert not Trigger.objects.filter(mcp_url="http://127.0.0.1:9/mcp").exists()


@pytest.mark.usefixtures("_two_days")
def test_its_trigger_moves_to_the_mcp_server_that_is_named(seed):
    seed()
    for port in 9001, 9002:
        url = f"http://127.0.0.1:{port}/mcp"
        said, *_ = seed("--mcp-url", url)
        assert "Made: MCP server of the trigger, MCP server of the pool's trigger, MCP ser" in said
        assert {trigger.mcp_url for trigger in Trigger.objects.all()} == {url}
    assert "nothing, since all was there" in seed("--mcp-url", url)[0]
    assert "nothing, since all was there" in seed()[0]
    assert {trigger.mcp_url for trigger in Trigger.objects.all()} == {url}

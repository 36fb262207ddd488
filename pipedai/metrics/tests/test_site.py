"""The metrics of a real site, two web processes and a scheduler, add up to what it did."""

import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
from django.db import transaction
from django.db.models.functions import Now

from pipedai.ids import new_id
from pipedai.metrics import VARIABLE
from pipedai.version import VERSION
from testing.probes.promql import queries, selections
from testing.probes.scrapes import TOKEN, Scrape
from testing.processes.main_job import MainJob
from testing.processes.scheduler_process import scheduling
from testing.processes.warm_start import SERVICE
from testing.processes.web_process import Server, free_port, serve
from testing.processes.webhook_receiver import receiving
from testing.processes.worker_process import until
from triggers.models import Run, Tick, Trigger
from workspaces.models import DataKey

# What the alerts and the dashboard ask for.
SELECTED = {selection for query in queries() for selection in selections(query)}
ON = {
    "METRICS_TOKEN": TOKEN,
    "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
}


@dataclass
class Site:
    """Two web processes and a scheduler."""

    server: Server
    scheduler: str

    def web(self) -> Scrape:
        return Scrape(self.server.url)

    def background(self) -> Scrape:
        return Scrape(self.scheduler)

    def shows_its_workers(self) -> bool:
        """Whether the metrics show the threads of each web process that lives, and of no other."""
        shown = self.web()
        pids = {str(pid) for pid in self.workers()}
        return shown.labels("pipedai_web_threads", "pid") == pids and (
            shown.value("pipedai_web_threads") == 8 * len(pids)
        )

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.server.process.pid).children()}


@pytest.fixture
def site(own_database: str, tmp_path: Path) -> Iterator[Site]:
    bind = f"127.0.0.1:{free_port()}"
    with (
        serve(own_database, log=tmp_path / "web.log", WEB_CONCURRENCY="2", **ON) as server,
        scheduling(
            own_database,
            log=tmp_path / "scheduler.log",
            # A scheduler must keep its metrics to itself even if it inherits this variable.
            **{**ON, "SCHEDULER_METRICS_BIND": bind, VARIABLE: "/nowhere"},
        ),
    ):
        yield Site(server, f"http://{bind}")


def _lengthen_a_stretch(due: datetime) -> None:
    """Adds an hourly trigger without a worker that had one tick and is due again. Its next tick emits no event."""
    trigger = Trigger.objects.get()
    trigger.id, trigger.worker_id, trigger.next_run_at = new_id(), None, due
    # The scheduler sees both rows at once, or it would begin a stretch of its own.
    with transaction.atomic():
        trigger.save(force_insert=True)
        Tick.objects.create(
            environment_id=trigger.environment_id,
            trigger=trigger,
            tick_at=due - timedelta(hours=1),
            last_tick_at=due - timedelta(hours=1),
            decision="skipped_no_worker",
            missed_count=1,
        )
    until(lambda: Tick.objects.get(trigger=trigger).missed_count == 2)


def test_the_figures_add_up_also_after_a_kill(site: Site) -> None:
    with receiving() as receiver:
        receiver.answer(500)
        job = MainJob.at(site.server.api, webhookUrl=receiver.url(), maxRetries=0)
        for _ in range(6):
            job.execute()
        lost = job.queue()
        job.claim(lost)
        Run.objects.filter(id=lost).update(lease_expires_at=Now())
        waiting = job.queue()
        # The trigger is due once now, and then not for most of an hour.
        due = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=2)
        Trigger.objects.update(
            schedule=f"{due.minute} * * * *", timezone="UTC", next_run_at="2026-01-01T00:00Z"
        )
        _lengthen_a_stretch(due)
        until(lambda: job.get(f"/runs/{lost}")["status"] == "failed")
        until(lambda: site.background().value("pipedai_deliveries_settled_total") >= 6)

    def web(name: str, **labels: str) -> float:
        return scrape.value(name, **labels)

    scrape = site.web()
    assert web("pipedai_runs_queued_total", source="manual") == 8
    assert web("pipedai_runs_claimed_total") == 7
    assert web("pipedai_runs_started_total") == 6
    assert web("pipedai_runs_ended_total", status="succeeded") == 6
    assert web("pipedai_runs_ended_total") == 6
    assert web("pipedai_audit_entries_total", action="run.completed") == 6
    complete = "api/v1/workers/<uuid:worker_id>/runs/<uuid:run_id>/complete"
    count = "pipedai_http_request_duration_seconds_count"
    assert web(count, route=complete, method="POST", status="2xx") == 6
    assert web("pipedai_queue_due_runs", worker="online") >= 1
    assert web("pipedai_queue_oldest_due_seconds", worker="online") > 0
    assert web("pipedai_workers_online") == 1
    assert web("pipedai_schedulers") == 1
    assert web("pipedai_database_up") == 1
    assert web("pipedai_build_info", version=VERSION) == 1
    assert web("pipedai_database_connections", state="active") >= 1
    until(site.shows_its_workers)

    background = site.background()
    assert background.value("pipedai_build_info", version=VERSION) == 1
    assert background.value("pipedai_run_leases_expired_total") == 1
    assert background.value("pipedai_runs_ended_total", status="failed", fault_class="infra") == 1
    assert background.value("pipedai_runs_queued_total", source="schedule") == 1
    assert background.value("pipedai_tick_firing_lag_seconds_count") == 1
    assert background.value("pipedai_ticks_skipped_total", decision="skipped_missed") > 1000
    assert background.value("pipedai_ticks_skipped_total", decision="skipped_no_worker") == 1
    assert background.value("pipedai_job_units_total", job="expire-runs") == 1
    assert background.value("pipedai_job_duration_seconds_count", job="fire-ticks") > 1
    attempts = "pipedai_webhook_attempt_duration_seconds_count"
    assert background.value(attempts, result="5xx") == 1
    assert background.value(attempts, result="2xx") >= 6

    # Alerts and dashboard ask for what is there. This site has had no failure of these kinds, and has no standby.
    never = {
        "up",
        "pipedai_job_failures_total",
        "pipedai_database_replication_lag_seconds",
    } | {
        each.name
        for each in SELECTED
        if ("status", "5xx") in each.equal or ("status", "dead") in each.equal
    }
    scrapes = [site.web(), background]
    missing = {each for each in SELECTED if not any(each.is_in(one) for one in scrapes)}
    assert [each for each in missing if each.name not in never] == []

    before = site.workers()
    victim = max(before)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(site.workers() - before) == 1)
    job.claim(waiting)
    job.report(waiting, "complete", {"status": "succeeded"})
    until(site.shows_its_workers)
    scrape = site.web()
    assert web("pipedai_runs_queued_total", source="manual") == 8
    assert web("pipedai_runs_ended_total", status="succeeded") == 7
    assert web(count, route=complete) == 7

    assert web("pipedai_secret_alarms_total") == 0
    DataKey.objects.update(retired_at=Now())
    for _ in range(2):  # There is an alarm for each place and process.
        with pytest.raises(AssertionError, match="503"):
            job.post(f"/triggers/{job.trigger_id}/rotate-mcp-token", {"mcpHeaders": {"x-key": "a"}})
    assert site.web().value("pipedai_secret_alarms_total") in {1, 2}


def directories(server: Server) -> list[Path]:
    """Returns the directories in which the server's processes share their metrics."""
    return list(Path(tempfile.gettempdir()).glob(f"pipedai-metrics-{server.process.pid}-*"))


def test_whatever_is_asked_for_is_counted_under_few_labels(
    own_database: str, tmp_path: Path
) -> None:
    with serve(own_database, log=tmp_path / "web.log", **ON) as server:
        with httpx.Client(base_url=server.url) as client:
            for number in range(50):
                assert client.get(f"/api/v1/nothing/{number}").status_code == 404
                client.request(f"METHOD{number}", f"/odd/{number}")
                client.get(f"/api/v1/runs/00000000-0000-0000-0000-{number:012}")
        scrape = Scrape(server.url)
        count = "pipedai_http_request_duration_seconds_count"
        assert scrape.value(count, route="unmatched", method="GET", status="4xx") >= 50
        assert scrape.value(count, route="unmatched", method="other") >= 50
        assert scrape.value(count, route="api/v1/runs/<uuid:run_id>", status="4xx") == 50
        assert scrape.labels(count, "method") <= {"GET", "POST", "other"}
        assert len(scrape.labels(count, "route")) < 6

        anybody = httpx.get(f"{server.url}/metrics")
        assert anybody.status_code == 401
        assert anybody.headers["www-authenticate"] == 'Bearer realm="metrics"'
        for sent in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", "Bearer é", TOKEN):
            headers = {b"Authorization": sent.encode("latin-1")}
            assert httpx.get(f"{server.url}/metrics", headers=headers).status_code == 401, sent
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{server.url}/metrics", headers=right).status_code == 405
        by_address = {**right, "Host": "10.0.0.10:8000"}
        assert httpx.get(f"{server.url}/metrics", headers=by_address).status_code == 200
        odd = {**right, "Accept": "application/openmetrics-text; version=x.y"}
        assert httpx.get(f"{server.url}/metrics", headers=odd).status_code == 200
        assert len(directories(server)) == 1
    assert directories(server) == []
    assert TOKEN not in (tmp_path / "web.log").read_text()


def test_without_a_token_there_are_none(server: Server) -> None:
    assert httpx.get(f"{server.url}/metrics").status_code == 404


@pytest.mark.parametrize(
    ("bind", "token", "sentence"),
    [
        ("127.0.0.1:0", "", "SCHEDULER_METRICS_BIND needs a METRICS_TOKEN"),
        ("9464", TOKEN, "SCHEDULER_METRICS_BIND must be host:port"),
        ("203.0.113.1:9464", TOKEN, "Metrics can't be served at 203.0.113.1:9464"),
    ],
)
def test_a_scheduler_that_can_t_serve_its_metrics_says_why(
    bind: str, token: str, sentence: str
) -> None:
    environment = {**os.environ, "METRICS_TOKEN": token, "SCHEDULER_METRICS_BIND": bind}
    done = SERVICE.run(["manage.py", "runscheduler"], environment)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr

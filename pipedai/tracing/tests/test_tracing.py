"""Spans of a real site arrive at a collector, and contain no secret and no private text."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db.models.functions import Now

from pipedai import tracing
from pipedai.env import BASE_DIR
from pipedai.tracing.tests.collector import Collector, collecting
from testing.probes.leaks import tokens_in
from testing.processes.main_job import HEADERS, PASSWORD, MainJob
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import serve
from testing.processes.webhook_receiver import receiving
from testing.processes.worker_process import until
from triggers.models import Run

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"


def test_requests_jobs_and_webhooks_are_traced(own_database: str, tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    with collecting() as collector, receiving() as receiver:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "WEBHOOK_ALLOWED_NETWORKS": "127.0.0.0/8",
            "LOG_FORMAT": "json",
        }
        with (
            serve(own_database, log=log, **environment) as server,
            scheduling(own_database, log=tmp_path / "scheduler.log", **environment) as scheduler,
        ):
            job = MainJob.at(
                server.api, webhookUrl=receiver.url("/hidden?key=private"), maxRetries=0
            )
            run = job.execute()
            lost = job.queue()
            job.claim(lost)
            Run.objects.filter(id=lost).update(lease_expires_at=Now())
            traced = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
            httpx.get(f"{server.api}/auth/me?secret=private", headers=traced)
            httpx.get(f"{server.url}/nothing/private", headers=traced)
            until(lambda: len(collector.named("webhook attempt")) == 2)
            scheduler.terminate()
            assert scheduler.wait(60) == 0
    _look_at_requests(collector, run["id"])
    _look_at_background(collector, lost)
    assert f'"trace_id": "{TRACE}"' in log.read_text()
    assert all("traceparent" not in request.headers for request in receiver.received)
    sent = collector.raw.decode("latin-1")
    assert tokens_in(sent) == []
    for private in (
        "private",
        "hidden",
        PASSWORD,
        "Report.",
        job.email,
        *HEADERS.values(),
        "SELECT",
    ):
        assert private not in sent


def _look_at_requests(collector: Collector, run_id: str) -> None:
    assert {span.service for span in collector.spans} == {"pipedai-web", "pipedai-scheduler"}
    route = "api/v1/workers/<uuid:worker_id>/runs/<uuid:run_id>/complete"
    (complete,) = collector.named(f"POST {route}")
    assert complete.attributes["http.route"] == route
    assert complete.attributes["http.response.status_code"] == 200
    assert [(name, ids["pipedai.run.id"]) for name, ids in complete.events] == [
        ("run.completed", run_id)
    ]
    ours = [span for span in collector.spans if span.trace_id == TRACE]
    assert {span.parent_id for span in ours} == {SPAN}
    refused, unmatched = sorted(ours, key=lambda span: span.name, reverse=True)
    assert refused.name == "GET api/v1/auth/me"
    assert refused.attributes["http.response.status_code"] == 401
    assert unmatched.name == "GET"
    assert "http.route" not in unmatched.attributes


def _look_at_background(collector: Collector, lost: str) -> None:
    (expire,) = collector.named("job expire-runs")
    assert expire.attributes["pipedai.job.units"] == 1
    # The run is not retried, so its loss opens an incident of its trigger too.
    told = dict(expire.events)
    assert told.keys() == {"run.lost", "incident.opened"}
    assert told["run.lost"]["pipedai.run.id"] == lost
    assert told["incident.opened"].keys() == {"pipedai.environment.id", "pipedai.incident.id"}
    for attempt in collector.named("webhook attempt"):
        assert attempt.attributes["server.address"] == "127.0.0.1"
        assert attempt.attributes["http.response.status_code"] == 204


def test_disabled_nothing_is_imported() -> None:
    """Without an endpoint nothing is either, as pipedai/tests/test_imports.py shows."""
    code = "import sys, pipedai.asgi; sys.exit('opentelemetry' in sys.modules)"
    disabled = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    environment = {**os.environ, **disabled}
    done = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, env=environment, check=False)
    assert done.returncode == 0


def test_without_the_packages_one_sentence_says_what_to_install(settings, monkeypatch) -> None:
    settings.TRACES_ENDPOINT = "http://127.0.0.1:4318"
    assert tracing.is_on()
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.raises(ImproperlyConfigured, match=r"requirements-otel\.txt"):
        tracing.is_on()

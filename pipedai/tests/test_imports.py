"""A web process imports no library that it may never need, since each import makes every start slower."""

import os
import subprocess
import sys

from pipedai.env import BASE_DIR

# What makes the schema, metrics, traces, and the check of a JSON Schema.
UNNEEDED = {
    "drf_spectacular.openapi",
    "pipedai.api.schema.auto",
    "prometheus_client",
    "opentelemetry",
    "jsonschema",
    "referencing",
}


def test_a_web_process_without_metrics_and_traces_imports_nothing_for_them():
    code = "import sys, pipedai.asgi, pipedai.urls; print(*sys.modules)"
    environment = {**os.environ, "METRICS_TOKEN": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    command = [sys.executable, "-c", code]
    imported = subprocess.run(
        command, cwd=BASE_DIR, env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    assert "pipedai.api.schema.operation" in imported
    assert set(imported) & UNNEEDED == set()

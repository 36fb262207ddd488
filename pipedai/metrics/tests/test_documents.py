"""docs/metrics.md lists every metric and no other; alerts and dashboard are valid PromQL over them."""

import re
from typing import Any

import yaml
from django.apps import apps

from pipedai.env import BASE_DIR
from testing.probes.promql import alerts, panels, selections
from testing.world.cases import cases

PAGE = (BASE_DIR / "docs" / "metrics.md").read_text()
DEFINED = re.compile(
    r"""(Counter|Histogram|Gauge|_gauge|GaugeMetricFamily|)\(\s*"(pipedai_\w+)\"""", re.ASCII
)
DOCUMENTED = re.compile(r"^\| `(pipedai_\w+)` \| (counter|gauge|histogram) \|", re.MULTILINE)


def defined() -> set[tuple[str, str]]:
    """Returns (name in a scrape, type) of each metric in the code."""
    sources = [
        *(BASE_DIR / "pipedai" / "metrics").glob("*.py"),
        *(BASE_DIR / app.label / "metrics.py" for app in apps.get_app_configs()),
    ]
    found = [
        pair for path in sources if path.is_file() for pair in DEFINED.findall(path.read_text())
    ]
    return {
        (f"{name}_total", "counter")
        if kind == "Counter"
        else (name, "histogram" if kind == "Histogram" else "gauge")
        for kind, name in found
    }


def test_every_metric_is_documented_and_no_other() -> None:
    assert set(DOCUMENTED.findall(PAGE)) == {(name, kind) for name, kind in defined()}
    assert len(DOCUMENTED.findall(PAGE)) == len(defined())


def in_a_scrape() -> set[str]:
    """Returns the names of the series of all metrics."""
    return {
        name + suffix
        for name, kind in defined()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }


def unknown(query: str) -> set[str]:
    """Returns the names in a query that are no metrics of ours, of the client library or of Prometheus."""
    named = {selection.name for selection in selections(query)}
    return named - in_a_scrape() - {"up", "process_resident_memory_bytes"}


@cases("rule", alerts())
def test_an_alert_is_a_query_over_metrics_that_exist(rule: dict[str, Any]) -> None:
    assert unknown(rule["expr"]) == set()
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")


@cases("panel", panels())
def test_a_panel_of_the_dashboard_is_a_query_over_metrics_that_exist(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"]["uid"] == "${datasource}"
    for target in panel["targets"]:
        assert unknown(target["expr"]) == set()
        # A legend can show only the labels that the query leaves.
        kept = {label for each in selections(target["expr"]) for label in each.labels}
        shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        assert shown <= kept | {"instance", "pid"}


def test_no_panel_covers_another() -> None:
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in panels()):
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_the_example_of_a_scrape_is_yaml() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(yaml.safe_load(example)["scrape_configs"]) == 2

"""docs/metrics.md lists every metric and no other, and the alert rules are valid PromQL over them."""

import re
from typing import Any

import promql_parser
import pytest
import yaml
from django.apps import apps

from pipedai.env import BASE_DIR

PAGE = (BASE_DIR / "docs" / "metrics.md").read_text()
RULES = yaml.safe_load((BASE_DIR / "docs" / "alerts.yml").read_text())["groups"][0]["rules"]
DEFINED = re.compile(
    r"""\b(Counter|Histogram|Gauge|_gauge|GaugeMetricFamily)\(\s*"(pipedai_\w+)\"""", re.ASCII
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


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_is_a_query_over_metrics_that_exist(rule: dict[str, Any]) -> None:
    promql_parser.parse(rule["expr"])
    known = {
        name + suffix
        for name, kind in defined()
        for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))
    }
    assert set(re.findall(r"\bpipedai_\w+", rule["expr"])) <= known
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert rule["annotations"]["summary"].endswith(".")


def test_the_example_of_a_scrape_is_yaml() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(yaml.safe_load(example)["scrape_configs"]) == 2

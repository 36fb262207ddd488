"""Reads queries in Prometheus's language, and compares what they select with a scrape."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import promql_parser
import yaml

from pipedai.env import BASE_DIR
from testing.probes.scrapes import Scrape

# Prometheus itself adds these labels to whatever it scrapes.
_OF_THE_TARGET = {"instance"}
# Grafana puts the time between two points of a graph there.
_GRAFANAS_RANGE = ("$__rate_interval", "5m")


@dataclass(frozen=True)
class Selection:
    """The series that one part of a query selects: `equal` labels have that value, and all of `labels` must exist."""

    name: str
    equal: tuple[tuple[str, str], ...]
    labels: frozenset[str]

    def is_in(self, scrape: Scrape) -> bool:
        """Whether the scrape has such a series."""
        return any(
            sample.name == self.name
            and set(self.equal) <= set(sample.labels.items())
            and self.labels <= set(sample.labels)
            for sample in scrape.samples
        )


def selections(query: str) -> list[Selection]:
    """Returns what a query selects. Raises ValueError if it is no PromQL."""
    return list(_selected(promql_parser.parse(query.replace(*_GRAFANAS_RANGE)), frozenset()))


def alerts() -> list[dict[str, Any]]:
    """Returns the rules of docs/alerts.yml."""
    groups = yaml.safe_load((BASE_DIR / "docs" / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = groups[0]["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    """Returns the panels of docs/grafana.json that show something."""
    dashboard = json.loads((BASE_DIR / "docs" / "grafana.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    """Returns the queries of all alerts and panels."""
    shown = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [*(rule["expr"] for rule in alerts()), *shown]


def _selected(part: Any, needed: frozenset[str]) -> Iterator[Selection]:
    """Yields what this part of a query selects. `needed` are the labels by which parts around it group."""
    if isinstance(part, promql_parser.VectorSelector):
        matchers = part.matchers.matchers
        equal = [(m.name, m.value) for m in matchers if m.op == promql_parser.MatchOp.Equal]
        labels = needed | {matcher.name for matcher in matchers}
        yield Selection(part.name or "", tuple(equal), labels - _OF_THE_TARGET)
    elif isinstance(part, promql_parser.AggregateExpr):
        by = frozenset(part.modifier.labels) if part.modifier else frozenset()
        yield from _selected(part.expr, needed | by)
    else:
        inner = [getattr(part, name, None) for name in ("lhs", "rhs", "expr", "vector_selector")]
        for each in [*inner, *getattr(part, "args", [])]:
            if each is not None:
                yield from _selected(each, needed)

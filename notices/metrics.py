"""The metrics of incidents: how many are open, and how many were opened and closed."""

from collections.abc import Iterator

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric

from notices.states import Kind
from pipedai.events import Event, on_committed
from pipedai.metrics.database import ROW_LIMIT, read_at_scrape
from pipedai.sql import fetch_all

OPENED = Counter("pipedai_incidents_opened", "Incidents that were opened.", ["kind"])
CLOSED = Counter("pipedai_incidents_closed", "Incidents that were closed.", ["kind"])

# The subquery reads the index `incident_watched` alone.
_OPEN = """
SELECT kind, count(*) AS open FROM (SELECT kind FROM incident WHERE closed_at IS NULL LIMIT %(limit)s) i GROUP BY kind
"""


@on_committed
def count_incident(event: Event) -> None:
    if event.action == "incident.opened":
        OPENED.labels(event.metadata["kind"]).inc()
    elif event.action == "incident.closed":
        CLOSED.labels(event.metadata["kind"]).inc()


@read_at_scrape
def read_open_incidents() -> Iterator[Metric]:
    counts = {row["kind"]: row["open"] for row in fetch_all(_OPEN, {"limit": ROW_LIMIT})}
    family = GaugeMetricFamily(
        "pipedai_incidents_open", "Incidents that are open.", labels=["kind"]
    )
    for kind in Kind:
        family.add_metric([kind.value], counts.get(kind.value, 0))
    yield family

"""The metrics of incidents: how many are open, and how many were opened and closed."""

from prometheus_client import Counter

from notices.states import Kind
from pipedai.events import Event, on_committed
from pipedai.metrics.database import register_gauges

OPENED = Counter("pipedai_incidents_opened", "Incidents that were opened.", ["kind"])
CLOSED = Counter("pipedai_incidents_closed", "Incidents that were closed.", ["kind"])


@on_committed
def count_incident(event: Event) -> None:
    if event.action == "incident.opened":
        OPENED.labels(event.metadata["kind"]).inc()
    elif event.action == "incident.closed":
        CLOSED.labels(event.metadata["kind"]).inc()


# The subquery reads the index `incident_watched` alone.
register_gauges(
    """
SELECT kind, count(*) AS open FROM (SELECT kind FROM incident WHERE closed_at IS NULL LIMIT %(limit)s) i GROUP BY kind
""",
    {"open": ("pipedai_incidents_open", "Incidents that are open.")},
    by="kind",
    words=Kind.values,
)

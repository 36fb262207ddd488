"""Makes thousands of due deliveries at once, for tests and benchmarks that need many."""

from datetime import datetime
from uuid import UUID

from pipedai.sql import execute

_QUEUE = """
INSERT INTO delivery (id, environment_id, trigger_id, message_id, url, host, body, next_attempt_at, status)
SELECT gen_random_uuid(), t.environment_id, t.id, 'msg_' || n, 'https://' || host || '/', host, '{}', %(due)s, 'pending'
FROM trigger t, generate_series(1, %(count)s) n, format('%%s.%%s', n %% %(hosts)s, %(domain)s::text) host
WHERE t.id = %(trigger_id)s
"""


def add_deliveries(
    trigger_id: UUID, count: int, *, due: datetime, hosts: int = 1, domain: str = "example"
) -> None:
    """Makes `count` deliveries of a trigger, the same number for each of `hosts` hosts in the domain."""
    params = {"trigger_id": trigger_id, "count": count, "hosts": hosts, "due": due}
    execute(_QUEUE, params | {"domain": domain})

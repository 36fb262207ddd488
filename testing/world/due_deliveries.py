"""Makes deliveries to dead hosts and to live ones, for a benchmark's schedulers.

    python -m testing.world.due_deliveries DEAD LIVE HOSTS PORT

makes DEAD deliveries to nine tenths of HOSTS, which are 127.0.2.1 and following, and LIVE ones to the others, which are
127.0.3.1 and following, in the database that DATABASE_URL or PIPEDAI_DATA_DIR names. Each host belongs to a workspace
of its own. None is due before `next_attempt_at` is set.
"""

import os
import sys
from uuid import UUID

import django

DEAD_NETWORK, LIVE_NETWORK = "127.0.2", "127.0.3"
# A time that never comes.
NEVER = "9999-01-01T00:00Z"

_QUEUE = f"""
INSERT INTO delivery (id, environment_id, trigger_id, message_id, url, host, body, next_attempt_at, status)
SELECT gen_random_uuid(), t.environment_id, t.id, 'msg_' || gen_random_uuid(),
    'http://' || host || ':' || %(port)s || '/', host, '{{}}', '{NEVER}', 'pending'
FROM trigger t, generate_series(1, %(count)s) n, (SELECT %(host)s AS host) h
WHERE t.id = %(trigger_id)s
"""  # noqa: S608 - of our own words


def main(dead: int, live: int, hosts: int, port: int) -> None:
    """Makes a workspace with a trigger for each host, and the deliveries."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from pipedai.sql import execute

    of_dead = hosts * 9 // 10
    for n in range(hosts):
        is_dead = n < of_dead
        network, nth = (DEAD_NETWORK, n) if is_dead else (LIVE_NETWORK, n - of_dead)
        execute(
            _QUEUE,
            {
                "trigger_id": _new_trigger(n),
                "count": dead // of_dead if is_dead else live // (hosts - of_dead),
                "host": f"{network}.{nth + 1}",
                "port": str(port),
            },
        )


def _new_trigger(n: int) -> UUID:
    from testing.world.cast import TEST_ACTOR
    from testing.world.trigger_values import trigger_values
    from testing.world.users import UserFactory
    from triggers.services import TRIGGERS
    from workspaces.services import create_environment, create_workspace

    owner = UserFactory.create()
    workspace = create_workspace(name=f"Customer {n}", user_id=owner.id, actor=TEST_ACTOR)
    environment = create_environment(
        workspace_id=workspace.id, name="production", user_id=owner.id, actor=TEST_ACTOR
    )
    values = trigger_values(worker_id=None, schedule=None)
    return TRIGGERS.create(environment_id=environment.id, actor=TEST_ACTOR, values=values)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

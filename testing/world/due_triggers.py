"""Makes triggers that will come due by the real clock, for a benchmark's schedulers.

    python -m testing.world.due_triggers COUNT

makes so many in the database of the environment's DATABASE_URL or PIPEDAI_DATA_DIR: none of them is due
before somebody sets `next_run_at`. They are hourly, spread over the hour's minutes.
"""

import os
import sys

import django


def main(count: int) -> None:
    """Makes them, with a cast."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from testing.world.cast import make_cast
    from testing.world.many_triggers import add_triggers
    from triggers.models import Trigger

    add_triggers(make_cast(), count)
    Trigger.objects.filter(next_run_at__isnull=False).update(next_run_at="9999-01-01T00:00Z")


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""Makes triggers that will come due by the real clock, for a benchmark's schedulers.

    python -m testing.world.due_triggers COUNT

makes so many triggers in the database that DATABASE_URL or PIPEDAI_DATA_DIR names. They are hourly, spread over the
minutes of the hour. None of them comes due before `next_run_at` is set.
"""

import os
import sys

import django


def main(count: int) -> None:
    """Makes a cast and `count` triggers."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from testing.world.cast import make_cast
    from testing.world.many_triggers import add_triggers
    from triggers.models import Trigger

    add_triggers(make_cast(), count)
    Trigger.objects.filter(next_run_at__isnull=False).update(next_run_at="9999-01-01T00:00Z")


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The admin pages on which staff see triggers, runs, ticks, deliveries and schedulers."""

from triggers.admin import (  # noqa: F401 - each registers itself
    deliveries,
    runs,
    schedulers,
    start_page,
    ticks,
    triggers,
)

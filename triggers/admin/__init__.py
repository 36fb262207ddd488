"""The admin pages on which staff see triggers, runs, ticks, deliveries and processes."""

from triggers.admin import (  # noqa: F401 - each registers itself
    deliveries,
    processes,
    runs,
    start_page,
    ticks,
    triggers,
)

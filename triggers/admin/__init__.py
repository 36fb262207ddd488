"""The admin pages on which staff see triggers, runs, ticks, deliveries and processes."""

# Each module registers its pages, in the order in which the side bar shows them.
from triggers.admin import (  # noqa: F401, I001
    triggers,
    runs,
    ticks,
    deliveries,
    budgets,
    processes,
    start_page,
)

"""The admin pages on which staff see triggers, runs, ticks, deliveries, events, budgets and processes."""

# Each module registers its pages, in the order in which the side bar shows them.
from triggers.admin import triggers, runs, approvals, events, budgets, start_page  # noqa: F401, I001

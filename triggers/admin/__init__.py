"""The admin pages on which staff see triggers, runs, ticks, deliveries, events, budgets and processes."""

from triggers.admin import pages  # noqa: F401 - importing the module registers its pages

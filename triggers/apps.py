"""The triggers app: triggers, their runs and the deliveries of their webhooks."""

from django.apps import AppConfig


class TriggersConfig(AppConfig):
    """Triggers, runs, deliveries."""

    name = "triggers"

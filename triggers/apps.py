"""The triggers app: triggers, their runs, and what follows from these."""

from django.apps import AppConfig


class TriggersConfig(AppConfig):
    name = "triggers"
    verbose_name = "Triggers and runs"

"""The Django app `notices`: it notices what goes wrong with triggers and workers, and has people told (SPEC §14)."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    name = "notices"
    verbose_name = "Incidents"

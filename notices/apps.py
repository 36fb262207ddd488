"""The Django app `notices`: it finds what goes wrong with triggers and workers, and tells people."""

from django.apps import AppConfig


class NoticesConfig(AppConfig):
    name = "notices"
    verbose_name = "Incidents"

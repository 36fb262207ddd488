"""The workers app: registered machines, and the protocol they speak."""

from django.apps import AppConfig


class WorkersConfig(AppConfig):
    """Workers."""

    name = "workers"

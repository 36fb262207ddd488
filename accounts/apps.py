"""The accounts app: people, their passwords and their browser sessions."""

from django.apps import AppConfig

from pipedai.api.throttling import prune_throttles
from pipedai.loop import Job, register_job


class AccountsConfig(AppConfig):
    """Users and sessions."""

    name = "accounts"

    def ready(self) -> None:
        """Registers the upkeep of the throttles' table, which this app's migrations make."""
        register_job(Job("prune-throttles", every_seconds=60.0, work=prune_throttles))

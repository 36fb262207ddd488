"""The accounts app: people, their passwords and their browser sessions."""

from django.apps import AppConfig
from django.conf import settings

from pipedai.api.throttling import prune_throttles
from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention

# Sessions stay for 30 days after their end: throttles know by them from where a user has logged in (SPEC §3).
_SESSIONS_KNOWN_DAYS = 30


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Registers the jobs that prune throttles and sessions and that rewrap the authenticators' secrets."""
        # These modules import models, which Django must have loaded before.
        from accounts.authenticators import rewrap_authenticators
        from accounts.pruning import prune_sessions

        register_job(Job("rewrap-authenticators", every_seconds=60.0, work=rewrap_authenticators))
        register_job(Job("prune-throttles", every_seconds=60.0, work=prune_throttles))
        register_retention(
            Retention(
                "sessions",
                "sessions, of the API and of admin, that have expired",
                lambda: settings.SESSION_RETENTION_DAYS,
                prune_sessions,
                at_least=_SESSIONS_KNOWN_DAYS,
            )
        )

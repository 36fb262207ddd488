"""The accounts app: people, their passwords and their browser sessions."""

from django.apps import AppConfig
from django.conf import settings

from pipedai.api.throttling import prune_throttles
from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention

# The row of a session is kept for at least 30 days after the session's end. The throttles that limit logins read in
# these rows from which IP addresses a user has logged in (SPEC §3).
_SESSIONS_KNOWN_DAYS = 30


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Registers two jobs of the scheduler and the rule by which expired sessions are deleted.

        One job deletes the old counters of the throttles, which limit how often clients may call. The other encrypts
        the secrets of staff's one-time passwords anew when there is a newer master key.
        """
        # These imports stand inside the method because they import models, which Django loads before it calls `ready`.
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

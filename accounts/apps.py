"""The accounts app: people, their passwords and their browser sessions."""

from django.apps import AppConfig
from django.conf import settings

from pipedai.api.throttling import prune_throttles
from pipedai.events import happened
from pipedai.loop import Job, register_job
from pipedai.replica.writers import note_writers, prune_recent_writes
from pipedai.retention import Retention, register_retention

# The row of a session is kept for at least 30 days after the session's end. The throttles that limit logins read in
# these rows from which IP addresses a user has logged in (SPEC §3).
_SESSIONS_KNOWN_DAYS = 30
# The longest time for which the token of a mail works: that of an invitation.
_TOKENS_WORK_DAYS = 7


class AccountsConfig(AppConfig):
    name = "accounts"

    def ready(self) -> None:
        """Registers three jobs of the scheduler, the mails about accounts, what remembers who writes, and the rules by
        which old rows are deleted.

        One job encrypts the secrets of staff's one-time passwords anew when there is a newer master key. The others
        delete old counters of the throttles, which limit how often clients may call, and old positions of writers.
        """
        # These imports stand inside the method because they import models, which Django loads before it calls `ready`.
        from accounts.authenticators import rewrap_authenticators
        from accounts.mail.outbox import ACCOUNT_MAILS
        from accounts.pruning import prune_account_mails, prune_sessions
        from pipedai.outgoing import register_kind

        register_kind(ACCOUNT_MAILS)
        register_job(Job("rewrap-authenticators", every_seconds=60.0, work=rewrap_authenticators))
        register_job(Job("prune-throttles", every_seconds=60.0, work=prune_throttles))
        register_job(Job("prune-recent-writes", every_seconds=60.0, work=prune_recent_writes))
        happened.connect(note_writers, dispatch_uid="pipedai.replica")
        register_retention(
            Retention(
                "sessions",
                "sessions, of the API and of admin, that have expired",
                lambda: settings.SESSION_RETENTION_DAYS,
                prune_sessions,
                at_least=_SESSIONS_KNOWN_DAYS,
            )
        )
        register_retention(
            Retention(
                "account-mails",
                "mails about accounts, with their attempts, and the invitations in them",
                lambda: settings.ACCOUNT_MAIL_RETENTION_DAYS,
                prune_account_mails,
                at_least=_TOKENS_WORK_DAYS + 1,
            )
        )

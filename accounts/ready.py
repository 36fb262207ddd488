"""What the app adds to the service: its mails, a job, and how long its rows are kept."""

from accounts import issuer
from accounts.authenticators import rewrap_authenticators
from accounts.mails import ACCOUNT_MAILS
from pipedai.checks import register_probe
from pipedai.loop import Job, register_job
from pipedai.outgoing.pool import register_kind
from pipedai.retention import Retention, register_retention, rows_where

# The row of a session is kept for at least 30 days after the session's end. The throttles on logins read from these
# rows from which IP addresses a user has logged in.
_SESSIONS_KNOWN_DAYS = 30
# The longest time for which the token of a mail works, which is that of an invitation, and how long mails are kept.
_TOKENS_WORK_DAYS = 7
_MAILS_KEPT_DAYS = 30

# Pruning sessions writes no audit row, because an expired session permits nothing any more.
prune_sessions = rows_where("session", "t.expires_at < %(before)s", by="t.expires_at")
prune_account_mails = rows_where(
    "account_mail",
    "t.created_at < %(before)s",
    by="t.created_at",
    children={"account_mail_attempt": "mail_id", "invitation": "mail_id"},
)


register_kind(ACCOUNT_MAILS)
if issuer.is_on():
    register_probe("sign-in", issuer.issuer_lets_us_in, needs_database=False)
register_job(
    Job(
        "rewrap-authenticators",
        60.0,
        rewrap_authenticators,
        does="Encrypts the secrets of staff's authenticators with the newest master key.",
        alone="Staff belong to no tenant.",
    )
)
register_retention(
    Retention(
        "sessions",
        "sessions, of the API and of admin, that have expired",
        lambda: _SESSIONS_KNOWN_DAYS,
        prune_sessions,
        at_least=_SESSIONS_KNOWN_DAYS,
    ),
    Retention(
        "account-mails",
        "mails about accounts, with their attempts, and the invitations in them",
        lambda: _MAILS_KEPT_DAYS,
        prune_account_mails,
        at_least=_TOKENS_WORK_DAYS + 1,
    ),
)

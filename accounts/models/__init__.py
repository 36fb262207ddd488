"""The tables of the accounts app."""

from accounts.models.mail import AccountMail, AccountMailAttempt
from accounts.models.people import Authenticator, RecoveryCode, Session, User

__all__ = [
    "AccountMail",
    "AccountMailAttempt",
    "Authenticator",
    "RecoveryCode",
    "Session",
    "User",
]

"""Says whether addresses have to be proved, and which users have proved theirs (SPEC §15)."""

from typing import Final
from uuid import UUID

from django.conf import settings

from pipedai.sql import fetch_one

# The SQL condition that the user `u` is active and has proved that their address is theirs.
PROVED: Final = "u.is_active"


def proof_counts() -> bool:
    """Returns whether an address gets notices only if its owner is known to want them.

    That is so only while a mail server is set. Without one, mails are files in development, and nobody could prove an
    address.
    """
    return bool(settings.EMAIL_URL)


def has_proved(user_id: UUID) -> bool:
    """Returns whether the user has proved their address."""
    found = fetch_one(
        f"SELECT FROM user_account u WHERE u.id = %(user_id)s AND {PROVED}", {"user_id": user_id}
    )
    return found is not None

"""Makes users for tests and demo data."""

from typing import Any

import factory
from django.contrib.auth.hashers import make_password
from factory.declarations import LazyFunction

from accounts.models import User
from pipedai.ids import new_id

PASSWORD = "correct horse battery staple"  # noqa: S105 - All test users have it.
_HASH = make_password(PASSWORD)


class UserFactory(factory.django.DjangoModelFactory[User]):
    """Makes a user with PASSWORD, which is hashed only once for all users."""

    email = LazyFunction(lambda: f"user-{new_id().hex[-12:]}@example.com")
    name = "Someone"
    password = _HASH

    class Meta:
        model = User


def use_instant_passwords(settings: Any) -> None:
    """Makes new hashes fast ones, and still verifies real hashes."""
    settings.PASSWORD_HASHERS = [
        "django.contrib.auth.hashers.MD5PasswordHasher",
        *settings.PASSWORD_HASHERS,
    ]

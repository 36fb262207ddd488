"""The accounts app: people, their passwords and their browser sessions."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Users and sessions."""

    name = "accounts"

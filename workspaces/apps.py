"""The workspaces app: tenancy, roles, keys."""

from django.apps import AppConfig


class WorkspacesConfig(AppConfig):
    """Workspaces, environments, members, API keys, data keys."""

    name = "workspaces"

    def ready(self) -> None:
        """Says what dies with a user's deactivation."""
        # Models must be loaded first.
        from accounts.deactivation import register_consequence
        from workspaces.unused_keys import end_keys_of_deactivated

        register_consequence(end_keys_of_deactivated)

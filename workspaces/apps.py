"""The workspaces app: tenancy, roles, keys."""

from django.apps import AppConfig

from pipedai.deployment import Probe, register_probe


class WorkspacesConfig(AppConfig):
    """Workspaces, environments, members, API keys, data keys."""

    name = "workspaces"

    def ready(self) -> None:
        """Says what dies with a user's deactivation, and how to tell that the keys are right."""
        # Models must be loaded first.
        from accounts.deactivation import register_consequence
        from workspaces.api_keys import end_keys_of_deactivated
        from workspaces.deployment import keys_open

        register_probe(Probe("keys", keys_open))
        register_consequence(end_keys_of_deactivated)

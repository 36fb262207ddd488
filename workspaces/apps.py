"""The workspaces app: tenancy, roles, keys."""

from django.apps import AppConfig

from pipedai.deployment import Probe, register_probe


class WorkspacesConfig(AppConfig):
    name = "workspaces"

    def ready(self) -> None:
        """Registers what ends when a user is deactivated, and the probe of the data keys."""
        # These modules import models, which Django must have loaded before.
        from accounts.deactivation import register_consequence
        from workspaces.api_keys import end_keys_of_deactivated
        from workspaces.deployment import keys_open

        register_probe(Probe("keys", keys_open))
        register_consequence(end_keys_of_deactivated)

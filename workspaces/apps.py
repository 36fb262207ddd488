"""The workspaces app: workspaces, environments, their members with roles, and API keys."""

from django.apps import AppConfig

from pipedai.deployment import Probe, register_probe


class WorkspacesConfig(AppConfig):
    name = "workspaces"

    def ready(self) -> None:
        """Registers with other parts of the service: the unused `wrk_` keys of a deactivated user are to be revoked,
        and `check_deploy` is to check the encryption keys.
        """
        # These imports stand inside the method because they import models, which Django loads before it calls `ready`.
        from accounts.deactivation import register_consequence
        from workspaces.api_keys import end_keys_of_deactivated
        from workspaces.deployment import keys_open

        register_probe(Probe("keys", keys_open))
        register_consequence(end_keys_of_deactivated)

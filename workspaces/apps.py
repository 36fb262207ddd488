"""The workspaces app: workspaces, environments, their members with roles, and API keys."""

from django.apps import AppConfig

from pipedai.deployment import Probe, register_probe


class WorkspacesConfig(AppConfig):
    name = "workspaces"

    def ready(self) -> None:
        """Registers with other parts of the service: what is to end when a user is deactivated or displaced, how an
        invitation is accepted by registering, when open event streams are checked, and that `check_deploy` is to check
        the encryption keys.
        """
        # These imports stand inside the method because they import models, which Django loads before it calls `ready`.
        from accounts.proof import Rights, register_rights
        from workspaces import stream_access  # noqa: F401 - importing it subscribes it
        from workspaces.api_keys import end_keys_of_deactivated
        from workspaces.deployment import keys_open
        from workspaces.invitations import accept_by_registering, lock_environments
        from workspaces.members import end_rights

        register_probe(Probe("keys", keys_open))
        register_rights(
            Rights(lock_environments, accept_by_registering, end_rights, end_keys_of_deactivated)
        )

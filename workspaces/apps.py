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
        from accounts import displacement
        from accounts.deactivation import register_consequence
        from accounts.registration import register_invitation
        from workspaces import stream_access  # noqa: F401 - importing it subscribes it
        from workspaces.api_keys import end_keys_of_deactivated
        from workspaces.deployment import keys_open
        from workspaces.displaced import end_rights, lock_environments
        from workspaces.invitations import accept_by_registering

        register_probe(Probe("keys", keys_open))
        register_consequence(end_keys_of_deactivated)
        displacement.register_consequence(
            displacement.Consequence(lock=lock_environments, end=end_rights)
        )
        register_invitation(accept_by_registering)

"""The workspaces app: tenancy, roles, keys."""

from django.apps import AppConfig


class WorkspacesConfig(AppConfig):
    """Workspaces, environments, members, API keys, data keys."""

    name = "workspaces"

"""Django admin's pages of workspaces, environments, their members and their keys."""

from workspaces.admin import (  # noqa: F401 - importing each module registers its pages
    api_keys,
    data_keys,
    environments,
    invitations,
    memberships,
    workspaces,
)

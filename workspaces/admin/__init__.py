"""How staff see workspaces, environments, their members and their keys."""

from workspaces.admin import (  # noqa: F401 - each registers itself
    api_keys,
    data_keys,
    environments,
    memberships,
    workspaces,
)

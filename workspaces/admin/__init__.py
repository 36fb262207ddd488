"""The admin pages of workspaces, environments, their members, keys and connections."""

from workspaces.admin import (  # noqa: F401 - importing a module registers its pages
    connections,
    environments,
    keys,
)

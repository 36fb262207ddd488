"""The admin pages of workspaces, environments, their members and their keys."""

from workspaces.admin import environments, keys  # noqa: F401 - importing a module registers its pages

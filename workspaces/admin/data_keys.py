"""Django admin's pages of data keys and of the rotations that replace them."""

from typing import Any

from django.contrib.admin import display, register

from pipedai.admin.base import StaffModelAdmin
from pipedai.admin.filters import related
from pipedai.admin.panels import Facts, Panel
from pipedai.admin.site import site
from pipedai.admin.values import ident, link_to, moment
from workspaces.models import DataKey, DataKeyRotation, Environment


@register(DataKey, site=site)
class DataKeyAdmin(StaffModelAdmin):
    """Shows the data keys with which environments' secrets are encrypted: their ids and dates, never the keys
    themselves.
    """

    icon = "encrypted"
    when_empty = "There is no environment yet, so there is no data key."
    list_display = ("shown_id", "in_environment", "master_key_id", "created", "retired")
    list_display_links = None
    list_filter = (related("environment", Environment),)
    list_reads = ("id", "master_key_id", "created_at", "retired_at", "environment__name")
    list_select_related = ("environment",)
    story_joins = ("environment",)
    never_read = ("wrapped",)

    @display(description="Id")
    def shown_id(self, key: DataKey) -> Any:
        return link_to(DataKey, key.id)

    @display(description="Environment")
    def in_environment(self, key: DataKey) -> Any:
        return link_to(Environment, key.environment_id, key.environment.name)

    @display(description="Created")
    def created(self, key: DataKey) -> Any:
        return moment(key.created_at)

    @display(description="Retired")
    def retired(self, key: DataKey) -> Any:
        """Shows when another data key replaced this one."""
        return moment(key.retired_at)

    def story(self, row: DataKey) -> list[Panel]:
        """Returns the panel of a data key's page: its environment, its master key, and when it was made or replaced."""
        return [
            Facts(
                "Data key",
                [
                    ("Environment", self.in_environment(row)),
                    ("Wrapped under the master key", row.master_key_id),
                    ("Created", self.created(row)),
                    ("Retired", self.retired(row)),
                    ("Id", ident(row.id)),
                ],
            )
        ]


@register(DataKeyRotation, site=site)
class DataKeyRotationAdmin(StaffModelAdmin):
    """Shows the rotations of data keys that run now or were interrupted."""

    icon = "autorenew"
    when_empty = "No data key has been rotated yet."
    list_display = ("started", "of_environment")

    @display(description="Begun")
    def started(self, rotation: DataKeyRotation) -> Any:
        return moment(rotation.started_at)

    @display(description="Environment")
    def of_environment(self, rotation: DataKeyRotation) -> Any:
        """Shows the environment whose data key the rotation replaces, or says that the rotation replaces the data keys
        of all environments.
        """
        return link_to(Environment, rotation.environment_id) if rotation.environment_id else "all"

    def story(self, row: DataKeyRotation) -> list[Panel]:
        """Returns the panels of a rotation's page: its facts, and the command that continues it."""
        return [
            Facts(
                "Rotation",
                [
                    ("Begun", self.started(row)),
                    ("Environment", self.of_environment(row)),
                    ("Goes on with", "manage.py rotate_keys --data"),
                    ("Id", ident(row.id)),
                ],
            )
        ]

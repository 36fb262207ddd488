"""Workspaces, environments, members, API keys and data keys.

The environment is the tenancy boundary: every tenant row in every app carries its id.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from pipedai.ids import new_id
from workspaces.roles import KEY_ROLES, Role


class Workspace(models.Model):
    """A customer account; holds environments."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    name = models.CharField(max_length=200)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "workspace"

    def __str__(self) -> str:
        return self.name


class Environment(models.Model):
    """The tenancy boundary: members, keys, triggers, workers, runs, audit log, and its own data key."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="environments")
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "environment"
        constraints = (
            models.UniqueConstraint(
                fields=["workspace", "name"],
                condition=Q(deleted_at__isnull=True),
                name="environment_name_free_in_workspace",
            ),
        )

    def __str__(self) -> str:
        return self.name


class Membership(models.Model):
    """A user's role in one environment. The database keeps at least one owner (see the migration)."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="memberships", db_index=False
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="memberships",
        db_index=False,
    )
    role = models.CharField(max_length=8, choices=Role.choices)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "membership"
        constraints = (
            models.UniqueConstraint(fields=["environment", "user"], name="membership_once"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role"),
        )
        indexes = (
            models.Index(
                fields=["user"], include=["environment", "role"], name="membership_of_user"
            ),
        )


class ApiKey(models.Model):
    """A `pwk_` key of an external system, a `wrk_` key that registers one worker, once, or a host's `hos_` key."""

    class Kind(models.TextChoices):
        """The prefix of its token."""

        PWK = "pwk"
        WRK = "wrk"
        HOS = "hos"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="api_keys", db_index=False
    )
    kind = models.CharField(max_length=3, choices=Kind.choices)
    name = models.CharField(max_length=200)
    role = models.CharField(max_length=8, null=True)
    token_digest = models.BinaryField(max_length=32, unique=True)
    last_four = models.CharField(max_length=4)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    last_used_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)
    consumed_at = models.DateTimeField(null=True)
    # A worker's id; no foreign key, since workspaces know nothing of workers.
    consumed_by = models.UUIDField(null=True)
    # The credential that minted this registration token; the token dies with it.
    parent = models.ForeignKey(
        "self",
        null=True,
        on_delete=models.PROTECT,
        related_name="minted",
        db_index=False,
        db_constraint=False,
    )

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="api_key_in_environment"),
            models.CheckConstraint(
                condition=Q(kind="wrk") | Q(parent__isnull=True), name="api_key_only_wrk_is_minted"
            ),
            models.CheckConstraint(
                condition=Q(
                    kind="pwk",
                    role__isnull=False,  # a CHECK lets pass what is neither true nor false
                    role__in=[role.value for role in KEY_ROLES],
                )
                | Q(kind__in=("wrk", "hos"), role__isnull=True),
                name="api_key_role_of_kind",
            ),
            models.CheckConstraint(
                condition=Q(kind="wrk") | Q(consumed_at__isnull=True, consumed_by__isnull=True),
                name="api_key_only_wrk_is_consumed",
            ),
            models.CheckConstraint(
                condition=Q(consumed_at__isnull=True, consumed_by__isnull=True)
                | Q(consumed_at__isnull=False, consumed_by__isnull=False),
                name="api_key_consumed_by_somebody",
            ),
        )
        indexes = (
            models.Index(fields=["environment", "created_at", "id"], name="api_key_listed"),
            models.Index(
                fields=["parent"], condition=Q(parent__isnull=False), name="api_key_minted"
            ),
        )

    def __str__(self) -> str:
        return self.name


class DataKey(models.Model):
    """An environment's data-encryption key, wrapped by a master key (SPEC §8). One is in use at a time."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="data_keys", db_index=False
    )
    wrapped = models.BinaryField()
    master_key_id = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    retired_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "data_key"
        constraints = (
            models.UniqueConstraint(fields=["environment", "id"], name="data_key_in_environment"),
            models.UniqueConstraint(
                fields=["environment"],
                condition=Q(retired_at__isnull=True),
                name="data_key_one_in_use",
            ),
        )


class DataKeyRotation(models.Model):
    """A rotation of data keys that has not come to its end: the keys in use from before it are to be replaced.

    Whoever starts one while it is there goes on with it, so that a killed rotation begins nothing anew.
    """

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # Of this environment alone; of all, if there is none.
    environment = models.ForeignKey(
        Environment, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    started_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "data_key_rotation"
        constraints = (
            models.UniqueConstraint(
                fields=["environment"],
                name="data_key_rotation_one_under_way",
                nulls_distinct=False,
            ),
        )

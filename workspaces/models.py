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
    """A customer's account. It groups environments and has no members of its own."""

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The name that its creator gave it; two workspaces may have the same.
    name = models.CharField(max_length=200)
    # The user who created it. They may always see it and create environments in it.
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    # When it was created; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "workspace"

    def __str__(self) -> str:
        return self.name


class Environment(models.Model):
    """The tenancy boundary: it has its own members, keys, triggers, workers, runs, audit log and data key."""

    # A UUIDv7, which the service makes. Every row of the tenant carries it as `environment_id`.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The account to which it belongs; it never changes.
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="environments")
    # The name that people see, unique among the workspace's environments that are not deleted. Admins may change it.
    name = models.CharField(max_length=200)
    # When it was created; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When an owner deleted it: nobody sees it any more, and its keys and tokens are dead. None: it lives.
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
    """A user's role in one environment. The database makes sure that one owner stays (migration 0002).

    A membership that ends is deleted: the audit log alone remembers it.
    """

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment in which the user has the role.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="memberships", db_index=False
    )
    # The member. A user has at most one membership in an environment.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="memberships",
        db_index=False,
    )
    # `viewer`, `operator`, `admin` or `owner`. Whoever added the member chose it; admins and owners may change it.
    role = models.CharField(max_length=8, choices=Role.choices)
    # When the user became a member; the database writes it.
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
        """The prefix of the key's token, which says what the key is for."""

        PWK = "pwk"
        WRK = "wrk"
        HOS = "hos"

    # A UUIDv7, which the service makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The one environment in which the key is valid; it never changes.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="api_keys", db_index=False
    )
    # What the key is for: `pwk`, `wrk` or `hos`; it never changes.
    kind = models.CharField(max_length=3, choices=Kind.choices)
    # The name that people see. Whoever mints the key chooses it; a host's key is named after the host.
    name = models.CharField(max_length=200)
    # The role as which a `pwk` key acts, chosen when it is minted; None for the other kinds.
    role = models.CharField(max_length=8, null=True)
    # The SHA-256 of the token. The token itself is shown once, when it is minted, and stored nowhere.
    token_digest = models.BinaryField(max_length=32, unique=True)
    # The last four characters of the token, by which people recognise it.
    last_four = models.CharField(max_length=4)
    # The user who minted the key, or who let its host in. None if a key minted it.
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # When it was minted; the database writes it.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a call last used it; calls write it, at most every 10 s. None: no call has used it.
    last_used_at = models.DateTimeField(null=True)
    # From when on it is dead. Whoever mints it chooses; a `wrk` key lives for a day by default. None: it never expires.
    expires_at = models.DateTimeField(null=True)
    # When it was revoked: by an admin, or because its minter lost their rights. None: it was not.
    revoked_at = models.DateTimeField(null=True)
    # When a machine registered with this `wrk` key, which is dead since. None: nobody has used it.
    consumed_at = models.DateTimeField(null=True)
    # The worker that registered with this `wrk` key. It is no foreign key, since this app may not import `workers`.
    consumed_by = models.UUIDField(null=True)
    # The key that minted this `wrk` key, which dies with it. None: a person minted it, or it is of another kind.
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
                    role__isnull=False,  # without this, NULL makes the CHECK neither true nor false, which passes
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

    # A UUIDv7, which the service makes. Each sealed value's row names its data key by this id.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment whose secrets it seals; it never changes.
    environment = models.ForeignKey(
        Environment, on_delete=models.PROTECT, related_name="data_keys", db_index=False
    )
    # The key itself, encrypted under the master key. A rotation of the master key replaces it.
    wrapped = models.BinaryField()
    # The id in MASTER_KEYS of the master key that encrypts `wrapped`. A rotation of the master key replaces it.
    master_key_id = models.CharField(max_length=64)
    # When it was made. A rotation replaces data keys that are older than the rotation.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When another data key replaced it: nothing new is sealed under it. A rotation writes it. None: it is in use.
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
    """A rotation of data keys that has not finished: it replaces the keys in use that are older than `started_at`.

    `rotate_keys` deletes the row when it finishes. If the process is killed, the next call finds the row and continues
    that rotation.
    """

    # A UUIDv7, which the command makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The one environment whose key is replaced; None: those of all environments are.
    environment = models.ForeignKey(
        Environment, null=True, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    # When the rotation began; the database writes it.
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

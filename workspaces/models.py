"""The tables of workspaces, environments, members, API keys and data keys. Every tenant's row has its environment."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q, Value
from django.db.models.functions import Now

from accounts.models import AccountMail
from pipedai.ids import new_id
from pipedai.table_rules import check, has, index, lacks, unique
from workspaces.connections.models import Authorization, Connection, Revocation, RevocationAttempt
from workspaces.roles import KEY_ROLES, Role
from workspaces.tenant_columns import environment_key, in_environment, tenant_key


class Workspace(models.Model):
    """A customer's account, which groups environments. It has no members: users are members of environments."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The name that the workspace's creator gave it. Two workspaces may have the same name.
    name = models.CharField(max_length=200)
    # The user who created the workspace. They may always see it and create environments in it.
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # The ceilings that staff have raised: the most rows of each kind, by the API's names (workspaces/ceilings.py).
    ceilings = models.JSONField(db_default=Value({}, models.JSONField()))

    class Meta:
        db_table = "workspace"

    def __str__(self) -> str:
        return self.name


class Environment(models.Model):
    """The boundary between tenants, with its own members, keys, triggers, workers, runs, audit log and data key."""

    # The environment's id: a UUIDv7 that the service makes. Every row that belongs to the environment carries it as
    # `environment_id`.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    workspace = models.ForeignKey(Workspace, on_delete=models.PROTECT, related_name="environments")
    # The environment's name, unique among the workspace's environments that are not deleted. Admins may change it.
    name = models.CharField(max_length=200)
    # When an admin paused the environment: since then no run of it is given to a worker, and no schedule makes runs.
    # None if it is not paused.
    paused_at = models.DateTimeField(null=True)
    # Why the environment is paused, as the admin wrote it; None if they wrote nothing or it is not paused.
    pause_reason = models.CharField(max_length=500, null=True)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When an owner deleted the environment. Since then nobody sees it, and its keys and tokens do not work. None if it
    # is not deleted.
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "environment"
        constraints = (
            unique(
                "environment_name_free_in_workspace",
                ["workspace", "name"],
                where=lacks("deleted_at"),
            ),
            check("environment_pause_has_a_time", lacks("pause_reason") | has("paused_at")),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def paused(self) -> bool:
        return self.paused_at is not None


class Membership(models.Model):
    """A user's role in one environment. The row is deleted when the membership ends."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key("memberships")
    # The user who is a member. A user has at most one membership in an environment.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="memberships",
        db_index=False,
    )
    # The member's role: `viewer`, `operator`, `admin` or `owner`. Whoever added the member chose it, and admins and
    # owners may change it.
    role = models.CharField(max_length=8, choices=Role.choices)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        db_table = "membership"
        constraints = (
            unique("membership_once", ["environment", "user"]),
            check("membership_role", Q(role__in=Role.values)),
        )
        indexes = (index("membership_of_user", ["user"], include=["environment", "role"]),)


class Invitation(models.Model):
    """An invitation of an e-mail address into an environment. The row is deleted with its mail."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key("invitations")
    # The invited address, in the form of stored accounts.
    email = models.CharField(max_length=254)
    role = models.CharField(max_length=8, choices=Role.choices)
    # The user who invites. The invitation works only while this user may still grant the role.
    invited_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", db_index=False
    )
    mail = models.OneToOneField(AccountMail, on_delete=models.CASCADE, related_name="invitation")
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When the token stops working: seven days after the invitation was made, as `mail` says.
    expires_at = models.DateTimeField()
    # When a user accepted the invitation. None if nobody has.
    accepted_at = models.DateTimeField(null=True)
    # When an admin revoked the invitation, or when a later invitation replaced this one after it had expired. None if
    # neither happened.
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "invitation"
        constraints = (
            unique(
                "invitation_one_open",
                ["environment", "email"],
                where=lacks("accepted_at", "revoked_at"),
            ),
            check("invitation_role", Q(role__in=Role.values)),
            check("invitation_accepted_or_revoked", lacks("accepted_at") | lacks("revoked_at")),
        )
        indexes = (
            index(
                "invitation_open_listed",
                ["environment", "created_at", "id"],
                where=lacks("accepted_at", "revoked_at"),
            ),
        )

    def __str__(self) -> str:
        return self.email


class ApiKey(models.Model):
    """A `pwk_` key of an external system, a `wrk_` key that registers one worker once, or a host's `hos_` key."""

    class Kind(models.TextChoices):
        PWK = "pwk"
        WRK = "wrk"
        HOS = "hos"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The one environment in which the key is valid; it never changes.
    environment = environment_key("api_keys")
    # What the key is for: `pwk`, `wrk` or `hos`; it never changes.
    kind = models.CharField(max_length=3, choices=Kind.choices)
    # The key's name. The maker of the key chooses it; a host's key has the name of the host.
    name = models.CharField(max_length=200)
    # The role with which a `pwk` key acts, chosen when the key is made; None for the other kinds.
    role = models.CharField(max_length=8, null=True)
    # The SHA-256 of the key's token. The token itself is shown once, when the key is made, and stored nowhere.
    token_digest = models.BinaryField(max_length=32, unique=True)
    # The last four characters of the token, by which people recognise it.
    last_four = models.CharField(max_length=4)
    # The user who made the key, or who let the host of a `hos` key in. None if another key made it.
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    # Whether the key belongs to a command line that acts for `created_by`. It ends when this user leaves the
    # environment, or when their role falls below the key's.
    is_login = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a request last used the key. Requests write it, at most every 10 s. None if no request has used the key.
    last_used_at = models.DateTimeField(null=True)
    # When the key stops working. The maker of the key chooses it; a `wrk` key lives for a day by default. None for
    # never.
    expires_at = models.DateTimeField(null=True)
    # When the key was revoked: by an admin, or because the user who made it lost their rights. None if it was not.
    revoked_at = models.DateTimeField(null=True)
    # When a worker registered with this `wrk` key. Since then the key does not work any more. None if nobody has used
    # it.
    consumed_at = models.DateTimeField(null=True)
    # The id of the worker that registered with this `wrk` key. It is no foreign key, since this app may not import the
    # app `workers`.
    consumed_by = models.UUIDField(null=True)
    # The ids of the pools that the worker joins when it registers with this `wrk` key; None if it joins none. They are
    # no foreign keys, since this app may not import the app `workers`.
    pool_ids = ArrayField(models.UUIDField(), null=True)
    # The key whose call made this `wrk` key; revoking that key also revokes this one while it is unused. None for keys
    # that people made, and for other kinds.
    parent = tenant_key("self", null=True, related_name="minted")

    class Meta:
        db_table = "api_key"
        verbose_name = "API key"
        constraints = (
            in_environment("api_key"),
            check("api_key_only_wrk_is_minted", Q(kind="wrk") | lacks("parent")),
            # A CHECK whose value is NULL passes, so NULL must be excluded explicitly.
            check(
                "api_key_role_of_kind",
                has("role", kind="pwk", role__in=[role.value for role in KEY_ROLES])
                | lacks("role", kind__in=("wrk", "hos")),
            ),
            check("api_key_login_expires", Q(is_login=False) | has("expires_at", kind="pwk")),
            check(
                "api_key_only_wrk_is_consumed", Q(kind="wrk") | lacks("consumed_at", "consumed_by")
            ),
            check("api_key_only_wrk_joins_pools", Q(kind="wrk") | lacks("pool_ids")),
            check(
                "api_key_consumed_by_somebody",
                lacks("consumed_at", "consumed_by") | has("consumed_at", "consumed_by"),
            ),
        )
        indexes = (
            index("api_key_listed", ["environment", "created_at", "id"]),
            index("api_key_minted", ["parent"], where=has("parent")),
        )

    def __str__(self) -> str:
        return self.name


class DataKey(models.Model):
    """An environment's data key, stored encrypted under a master key. An environment has only one in use."""

    # The data key's id: a UUIDv7 that the service makes. Each encrypted value has it in the column beside.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key("data_keys")
    # The data key itself, encrypted under a master key. A rotation of the master key replaces this value.
    wrapped = models.BinaryField()
    # The id, in the setting MASTER_KEYS, of the master key that encrypts `wrapped`. A rotation of the master key
    # replaces it.
    master_key_id = models.CharField(max_length=64)
    # When the data key was made. A rotation replaces data keys that are older than the rotation.
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    # When a rotation replaced the data key by another one. Since then no new value is encrypted under it. None while it
    # is in use.
    retired_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "data_key"
        constraints = (
            in_environment("data_key"),
            unique("data_key_one_in_use", ["environment"], where=lacks("retired_at")),
        )


class DataKeyRotation(models.Model):
    """An unfinished rotation of the data keys older than `started_at`. A later `rotate_keys` continues it."""

    # The rotation's id: a UUIDv7 that the command `rotate_keys` makes.
    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    # The environment whose data key is replaced. None if those of all environments are.
    environment = environment_key(null=True)
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

"""The tables of connections, with which runs authenticate at MCP servers, and of the requests that end their grants."""

from typing import Final

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now

from pipedai.api.outside_urls import MAX_URL
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.outgoing.kinds import (
    OutboxRow,
    SendAttempt,
    attempt_constraints,
    outbox_constraints,
    outbox_indexes,
)
from pipedai.table_rules import check, has, index, lacks, unique
from workspaces.tenant_columns import (
    FileColumns,
    environment_key,
    has_its_key,
    in_environment,
    own_key,
    sealed_column,
    tenant_key,
)

# The columns that are encrypted.
HEADERS = sealed_column("connection", "headers", "headers_key_id")
GRANT_SECRETS = sealed_column("connection", "grant_secrets", "grant_secrets_key_id")
AUTHORIZATION_SECRETS = sealed_column("connection_authorization", "secrets", "secrets_key_id")
AUTHORIZATION_CARRIED = sealed_column("connection_authorization", "carried", "carried_key_id")

# The most bytes that the names and values of an MCP server's headers may have together.
MAX_HEADERS_BYTES: Final = 8 * 1024

# The SQL of the server that is asked for a connection's token: its host and, if that is unusual, its port.
SERVER: Final = (
    "coalesce(regexp_replace(lower(substring(coalesce(token_endpoint, mcp_url) "
    "from '^[^:]*://([^/?#]*)')), ':(80|443)$', ''), '')"
)


_BY_SERVER = (F("environment"), RawSQL(SERVER, ()), F("refresh_at"))  # noqa: S611 - it is a constant


class AuthorizedClient(models.Model):
    """The client as which the service appears at an authorization server, and how to ask that server. Discovery, which
    begins an authorization, fills an Authorization with it; the connection gets a copy once a person has agreed.
    """

    # The client id, which a user gave or the server made.
    client_id = models.CharField(max_length=MAX_URL, null=True)
    # How the client authenticates at the token endpoint: a word from `AUTH_METHODS` in pipedai/outgoing/oauth.py.
    auth_method = models.CharField(max_length=19, null=True)
    # The name of the MCP server in requests for tokens (RFC 8707), from its metadata.
    resource = models.CharField(max_length=MAX_URL, null=True)
    issuer = models.CharField(max_length=MAX_URL, null=True)
    token_endpoint = models.CharField(max_length=MAX_URL, null=True)
    # NULL if the server revokes no tokens (RFC 7009).
    revocation_endpoint = models.CharField(max_length=MAX_URL, null=True)

    class Meta:
        abstract = True


class Connection(FileColumns, AuthorizedClient):
    """The credentials for one MCP server, which any number of triggers use."""

    class Grant(models.TextChoices):
        """How a connection got its credentials. It never changes."""

        # A person agreed at the authorization server that the service may act for them.
        AUTHORIZATION_CODE = "authorization_code"
        # The service authenticates at the authorization server with a client id and a secret, which a user gave.
        CLIENT_CREDENTIALS = "client_credentials"
        # A user gave the headers that runs send.
        HEADERS = "headers"

    class Status(models.TextChoices):
        """Whether runs can use a connection. API.md says what a person can do in each state."""

        # It has no token yet. A person must authorize it; for `client_credentials` a scheduler fetches the token.
        UNAUTHORIZED = "unauthorized"
        # It has headers. These may have expired for as long as a scheduler needs to refresh them.
        CONNECTED = "connected"
        # Three requests for tokens in a row have failed. It keeps headers that it has, and schedulers keep asking.
        FAILING = "failing"
        # The authorization server refused to give tokens. Only a person can help: by `authorize`, or by a new secret.
        NEEDS_LOGIN = "needs_login"

    # The URL of the MCP server, in ASCII. It never changes, because the credentials are for this server only. Each
    # trigger that uses the connection has a copy, kept equal by a key (`trigger_connection_in_environment`).
    mcp_url = models.CharField(max_length=MAX_URL)
    grant_type = models.CharField(max_length=18, choices=Grant.choices)
    status = models.CharField(
        max_length=12, choices=Status.choices, default=Status.CONNECTED, db_default="connected"
    )
    # The headers that workers send to the server, as encrypted JSON: those that users gave, or the Authorization header
    # with the present access token. A rotation of the data key encrypts them anew. NULL while there are none.
    headers = models.BinaryField(null=True)
    headers_key = tenant_key("workspaces.DataKey", null=True)
    # The other secrets of the grant: the encrypted JSON of `secrets.GrantSecrets`. NULL if there are none.
    grant_secrets = models.BinaryField(null=True)
    grant_secrets_key = tenant_key("workspaces.DataKey", null=True)
    # The scopes that users chose to ask for. If it is empty, the scopes are those that the MCP server asks for.
    scopes = ArrayField(models.CharField(max_length=200), default=list, db_default=[])
    # Whether a user gave the client id; if so, it never changes. Otherwise each authorization makes a new client.
    client_given = models.BooleanField(default=False, db_default=False)
    # The issuer that the user's client secret belongs to: where it was first used, or which the form named when a new
    # secret was set. NULL if it was never used; also if a release before this column used it, and then `issuer` counts.
    secret_issuer = models.CharField(max_length=MAX_URL, null=True)
    # The issuer that the MCP server names now, if the client secret belongs to another one. A new secret is for it.
    next_issuer = models.CharField(max_length=MAX_URL, null=True)
    # The user who authorized the connection; NULL if nobody has, and for grants that need no authorization.
    connected_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
    )
    # When the connection got its first token, or was authorized anew.
    connected_at = models.DateTimeField(null=True)
    # When the access token in `headers` expires, until when runs may get it, and when a scheduler requests the next
    # one, all by the database's clock. `store_tokens` writes the three; a failed request moves `refresh_at` to later.
    access_expires_at = models.DateTimeField(null=True)
    fresh_until = models.DateTimeField(null=True)
    refresh_at = models.DateTimeField(null=True)
    # When the tokens were last refreshed.
    last_refresh_at = models.DateTimeField(null=True)
    # Why the last request for tokens failed, in our own words; NULL if it succeeded.
    error = models.CharField(max_length=300, null=True)
    # How many requests for tokens have failed in a row.
    failures = models.PositiveIntegerField(default=0, db_default=0)
    # The claim of the scheduler that requests tokens, and until when no other scheduler may. A claim that has expired
    # left no record: its process died, perhaps after the server had rotated the refresh token.
    lease_id = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    # Whether the claim repeats one that left no record. There is no third try.
    is_second_try = models.BooleanField(default=False, db_default=False)
    # When a user last changed the name, the headers, the scopes or the secret, by the database's clock.
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "connection"
        constraints = (
            own_key("connection"),
            unique("connection_in_environment", ["environment", "id", "mcp_url"]),
            unique("connection_of_environment", ["environment", "id"]),
            check(
                "connection_grant",
                Q(grant_type="headers", grant_secrets__isnull=True)
                | Q(grant_type="authorization_code")
                | Q(grant_type="client_credentials", client_given=True, grant_secrets__isnull=False)
                & has("client_id"),
            ),
            check(
                "connection_status",
                Q(status="connected", headers__isnull=False)
                | ~Q(grant_type="headers")
                & (
                    Q(status="unauthorized", headers__isnull=True)
                    | Q(status="failing", error__isnull=False)
                    | Q(status="needs_login", headers__isnull=True, error__isnull=False)
                ),
            ),
            # A token always has its times, and headers that a user gave never have any.
            check(
                "connection_token_has_times",
                lacks("access_expires_at", "fresh_until")
                & (lacks("headers") | Q(grant_type="headers"))
                | has("access_expires_at", "fresh_until", "headers") & ~Q(grant_type="headers"),
            ),
            # A connection whose token a scheduler can get always has a time for the next request.
            check(
                "connection_refreshed",
                has("refresh_at")
                & ~Q(grant_type="headers")
                & (
                    Q(status__in=("connected", "failing"))
                    | Q(status="unauthorized", grant_type="client_credentials")
                )
                | lacks("refresh_at")
                & (
                    Q(grant_type="headers")
                    | Q(status="needs_login")
                    | Q(status="unauthorized", grant_type="authorization_code")
                ),
            ),
            check(
                "connection_lease",
                Q(lease_id__isnull=True, leased_until__isnull=True, is_second_try=False)
                | has("lease_id", "leased_until", "refresh_at"),
            ),
            has_its_key("connection", "headers"),
            has_its_key("connection", "grant_secrets"),
        )
        indexes = (
            index("connection_listed", ["environment", "created_at", "id"]),
            # Schedulers find due connections by this index.
            index("connection_due", ["refresh_at"], where=has("refresh_at")),
            # By these two indexes schedulers take environments and servers in turns: one for working connections, and
            # one for those without a token or with a failure.
            models.Index(
                *_BY_SERVER,
                name="connection_healthy_by_server",
                condition=has("refresh_at", "headers", failures=0),
            ),
            models.Index(
                *_BY_SERVER,
                name="connection_ailing_by_server",
                condition=has("refresh_at") & (lacks("headers") | Q(failures__gt=0)),
            ),
            # Metrics count by this index, and attention finds the connections that need a person.
            index(
                "connection_troubled",
                ["status", "environment"],
                where=Q(status__in=("failing", "needs_login")),
            ),
        )

    def end_claim(self) -> None:
        """Ends the claim, so that a late answer of its scheduler is dropped, and the next claim is a first try."""
        self.lease_id = self.leased_until = None
        self.is_second_try = False


class Authorization(AuthorizedClient):
    """An authorization that a person has begun and not finished. Schedulers ask the servers for it."""

    class Stage(models.TextChoices):
        # A scheduler still has to find out which requests the authorization server takes.
        ASKED = "asked"
        # The person may go to the authorization server now, and comes back with a code.
        READY = "ready"
        # The person has brought a code. A scheduler still has to exchange it for tokens.
        RETURNED = "returned"
        # The connection has the tokens.
        DONE = "done"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    environment = environment_key()
    connection = models.ForeignKey(
        Connection,
        on_delete=models.CASCADE,
        related_name="authorizations",
        db_constraint=False,
        db_index=False,
    )
    stage = models.CharField(
        max_length=8, choices=Stage.choices, default=Stage.ASKED, db_default=Stage.READY
    )
    # The SHA-256 of the `state` that the browser brings back. Once a code came, another digest replaces it.
    state_digest = models.BinaryField(max_length=32, unique=True)
    # The session that began the authorization, and may finish it. No foreign key, because sessions are pruned.
    session_id = models.UUIDField()
    # The user of that session, and for the audit log the network address and the request id of their call.
    user_id = models.UUIDField(null=True)
    address = models.CharField(max_length=45, null=True)
    request_id = models.CharField(max_length=128, null=True)
    # Where the authorization server sends the browser: the connection's own page.
    redirect_uri = models.CharField(max_length=MAX_URL)
    # Until when the person can finish it, or, while a scheduler is to ask a server, until when it may begin.
    expires_at = models.DateTimeField()
    # The encrypted JSON of `secrets.GrantSecrets`: the PKCE verifier, and the secrets of the client.
    secrets = models.BinaryField()
    secrets_key = tenant_key("workspaces.DataKey")
    # An encrypted value for the next step: first the URL to which the browser is to go, until the browser got it, and
    # then the code, until a scheduler begins to exchange it.
    carried = models.BinaryField(null=True)
    carried_key = tenant_key("workspaces.DataKey", null=True)
    # Whether the server has promised to name its issuer when it sends the browser back (RFC 9207).
    sends_issuer = models.BooleanField()
    # The server that a scheduler is to ask, as the host and port of its URL, and since when the request is due.
    host = models.CharField(max_length=MAX_URL, null=True)
    due_at = models.DateTimeField(null=True)
    # The claim of the scheduler that asks, until when no other scheduler may claim it, and how many claims there were.
    lease_id = models.UUIDField(null=True)
    leased_until = models.DateTimeField(null=True)
    tries = models.PositiveSmallIntegerField(default=0, db_default=0)
    # Why the step failed, as a code of `ErrorCode` and a sentence for the person; NULL if it succeeded or is not over.
    error_code = models.CharField(max_length=40, null=True)
    error = models.CharField(max_length=400, null=True)

    class Meta:
        db_table = "connection_authorization"
        constraints = (
            # A session has one authorization of a connection. A person who begins anew can't finish the earlier one.
            unique(
                "connection_authorization_once_a_session",
                ["environment", "connection", "session_id"],
            ),
            has_its_key("connection_authorization", "carried"),
            # `due_at` is set exactly while an authorization waits for a scheduler, because schedulers search by it.
            check(
                "connection_authorization_due",
                has(
                    "due_at", "host", "user_id", stage__in=("asked", "returned"), error__isnull=True
                )
                | lacks("due_at", "lease_id", "leased_until")
                & (Q(stage__in=("ready", "done")) | has("error", "error_code")),
            ),
        )
        indexes = (
            index("connection_authorization_late", ["expires_at"]),
            # Schedulers find due authorizations by these indexes, and count the claimed ones.
            index("authorization_due_at", ["due_at"], where=has("due_at")),
            index(
                "authorization_turn",
                ["environment", "host", "due_at"],
                where=has("due_at"),
            ),
            index("authorization_leased", ["leased_until"], where=has("leased_until")),
        )

    @property
    def actor(self) -> Actor:
        return Actor("user", self.user_id, self.address, self.request_id)


# The column that is encrypted.
REVOCATION_REQUEST = sealed_column("connection_revocation", "request", "request_key_id")


class Revocation(OutboxRow):
    """A request that ends a grant at its authorization server: it revokes a token (RFC 7009) or removes a client
    that was registered for the connection (RFC 7592). The row has all that the request needs, because that may be
    deleted.
    """

    class Purpose(models.TextChoices):
        # The request revokes a refresh token, or an access token if there is no other.
        TOKEN = "token"  # noqa: S105 - it is no password
        # The request removes the registration of a client.
        CLIENT = "client"

    environment = environment_key()
    # The connection that had the grant. It is no foreign key, because the connection may be deleted.
    connection_id = models.UUIDField()
    purpose = models.CharField(max_length=6, choices=Purpose.choices)
    # The encrypted request; NULL once it is delivered or given up.
    request = models.BinaryField(null=True)
    request_key = tenant_key("workspaces.DataKey", null=True)

    class Meta:
        db_table = "connection_revocation"
        constraints = (
            in_environment("connection_revocation"),
            *outbox_constraints(),
            has_its_key("connection_revocation", "request"),
            check(
                "connection_revocation_is_forgotten",
                Q(status="pending", request__isnull=False)
                | (~Q(status="pending") & lacks("request")),
            ),
        )
        indexes = (
            *outbox_indexes(of_environments=True),
            index("connection_revocation_old", ["created_at"], where=~Q(status="pending")),
        )

    def __str__(self) -> str:
        return str(self.id)


class RevocationAttempt(SendAttempt):
    pk = models.CompositePrimaryKey("revocation_id", "n")
    environment = environment_key()
    revocation = tenant_key("workspaces.Revocation", related_name="attempts")

    class Meta:
        db_table = "connection_revocation_attempt"
        constraints = attempt_constraints("connection_revocation_attempt_has_an_end")

"""Makes triggers with planted secrets, tampers with these as an intruder in the database could, and makes keys."""

import base64
import json
from dataclasses import replace
from uuid import UUID

from django.db.models.functions import Now

from pipedai.sql import execute
from testing.world.cast import Cast
from triggers.models import Trigger
from triggers.models.trigger import MCP_HEADERS, WEBHOOK_SECRET
from workspaces.encryption.keys import WrappedKey, create_data_key, unseal, unseal_from
from workspaces.models import DataKey

HEADERS = {"Authorization": "Bearer planted-header"}
SECRET = "planted-webhook-secret"  # noqa: S105


def add_sealed_trigger(cast: Cast, *, url: str = "https://hooks.example/") -> UUID:
    """Adds a trigger with both secrets to the cast's environment."""
    return cast.add_trigger(mcp_headers=HEADERS, webhook_secret=SECRET, webhook_url=url)


def headers_of(trigger_id: UUID | str) -> dict[str, str]:
    """Opens the headers of a trigger that has some. Raises crypto.CannotOpen."""
    plaintext = unseal_from(MCP_HEADERS, Trigger.objects.get(id=trigger_id))
    assert plaintext is not None
    return dict(json.loads(plaintext))


def opened(trigger_id: UUID) -> tuple[dict[str, str], str]:
    """Opens both secrets of a trigger that has both. Raises crypto.CannotOpen."""
    row = Trigger.objects.select_related("mcp_key", "webhook_key").get(id=trigger_id)
    assert row.mcp_headers is not None
    assert row.webhook_secret is not None
    place = (row.environment_id, row.id)
    headers = unseal(MCP_HEADERS, *place, bytes(row.mcp_headers), _wrapped(row.mcp_key))
    secret = unseal(WEBHOOK_SECRET, *place, bytes(row.webhook_secret), _wrapped(row.webhook_key))
    return json.loads(headers), secret.decode()


def master_key(key_id: str) -> str:
    """Returns an entry of `MASTER_KEYS`. The same id always has the same key."""
    return f"{key_id}:{base64.b64encode(key_id.encode() * 32)[:43].decode()}="


def key_in_use(environment_id: UUID) -> DataKey:
    """Returns the environment's data key."""
    return DataKey.objects.get(environment_id=environment_id, retired_at__isnull=True)


# Each statement tampers with the secrets of the trigger `%(id)s`. `%(other)s` is another trigger of its environment,
# `%(strange)s` is one of another environment, and `%(unused)s` is a data key that seals nothing.
_STATEMENTS = {
    "bit flip": """
        UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 40, get_byte(mcp_headers, 40) # 1),
            webhook_secret = set_byte(webhook_secret, 40, get_byte(webhook_secret, 40) # 128)
        WHERE id = %(id)s""",
    "another version": """
        UPDATE trigger SET mcp_headers = set_byte(mcp_headers, 0, 2), webhook_secret = set_byte(webhook_secret, 0, 2)
        WHERE id = %(id)s""",
    "swapped row": """
        UPDATE trigger t SET mcp_headers = o.mcp_headers, webhook_secret = o.webhook_secret
        FROM trigger o WHERE t.id = %(id)s AND o.id = %(other)s""",
    "swapped field": """
        UPDATE trigger SET mcp_headers = webhook_secret, webhook_secret = mcp_headers WHERE id = %(id)s""",
    "swapped environment": """
        UPDATE trigger t SET mcp_headers = o.mcp_headers, webhook_secret = o.webhook_secret
        FROM trigger o WHERE t.id = %(id)s AND o.id = %(strange)s""",
    "truncated": """
        UPDATE trigger SET mcp_headers = substring(mcp_headers FOR length(mcp_headers) - 1),
            webhook_secret = substring(webhook_secret FOR 20)
        WHERE id = %(id)s""",
    "emptied": "UPDATE trigger SET mcp_headers = '', webhook_secret = '' WHERE id = %(id)s",
    "wrong data key": """
        UPDATE trigger SET mcp_key_id = %(unused)s, webhook_key_id = %(unused)s WHERE id = %(id)s""",
}
# Each statement tampers with the data key `%(key)s`, after which nothing that it sealed opens.
_STATEMENTS_ABOUT_KEYS = {
    "unknown master key": "UPDATE data_key SET master_key_id = 'gone' WHERE id = %(key)s",
    "data key flipped": """
        UPDATE data_key SET wrapped = set_byte(wrapped, 40, get_byte(wrapped, 40) # 1) WHERE id = %(key)s""",
    "data key cut": "UPDATE data_key SET wrapped = substring(wrapped FOR 40) WHERE id = %(key)s",
    "data key swapped": """
        UPDATE data_key k SET wrapped = o.wrapped FROM data_key o WHERE k.id = %(key)s AND o.id = %(strange_key)s""",
}


# A way of TAMPERINGS breaks single values. One of KEY_TAMPERINGS breaks a data key, and so every value that it sealed.
TAMPERINGS = (*_STATEMENTS,)
KEY_TAMPERINGS = (*_STATEMENTS_ABOUT_KEYS,)


def tamper(how: str, trigger_id: UUID, *, cast: Cast) -> None:
    """Tampers with the secrets of one of the cast's triggers in the named way, directly in the database."""
    strange = replace(cast, environment=cast.strange_environment, owner=cast.stranger)
    ids = {
        "id": trigger_id,
        "other": add_sealed_trigger(cast),
        "strange": add_sealed_trigger(replace(strange, worker=strange.register("host-9"))),
        "unused": _unused_key(cast.environment.id),
        "key": key_in_use(cast.environment.id).id,
        "strange_key": key_in_use(cast.strange_environment.id).id,
    }
    assert execute((_STATEMENTS | _STATEMENTS_ABOUT_KEYS)[how], ids) == 1


def _unused_key(environment_id: UUID) -> UUID:
    """Adds a valid data key that is retired, and returns its id."""
    in_use = DataKey.objects.filter(environment_id=environment_id, retired_at__isnull=True)
    old = in_use.get()
    in_use.update(retired_at=Now())
    key = create_data_key(environment_id)
    DataKey.objects.filter(id=key.id).update(retired_at=Now())
    DataKey.objects.filter(id=old.id).update(retired_at=None)
    return key.id


def _wrapped(key: DataKey) -> WrappedKey:
    return WrappedKey(key.id, bytes(key.wrapped), key.master_key_id)

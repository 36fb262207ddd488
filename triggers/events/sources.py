"""Creates, changes and deletes sources of events (SPEC §25), each with its audit event in the same transaction."""

import json
from typing import Any

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.renderers import counted
from pipedai.events import Actor
from pipedai.outgoing import standard_key
from pipedai.redaction import REDACTED
from triggers.events.signatures import TOKEN_SCHEMES
from triggers.models import SECRETS, EventSource
from triggers.states import Scheme
from workspaces.encryption import keys
from workspaces.resources import Resource

# The columns that a user sets and the audit log shows.
_SHOWN = ("name", "enabled", "hmac", "key", "managed_by")


class Sources(Resource[EventSource]):
    """The events of a deleted source stay as long as others."""

    noun = "source"
    model = EventSource
    # A trigger may be about to listen to it.
    is_referred_to = True
    # A request that takes an event may write `last_event_at` at the same time.
    written = (*_SHOWN, "secrets", "secrets_key", "updated_at")
    emptied = ("secrets", "secrets_key")
    described_by = {"scheme": "scheme"}
    tells_all = True

    def apply(self, source: EventSource, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """The audit row shows no secret."""
        if source._state.adding:
            source.scheme = values["scheme"]
            values = {"hmac": None, **values}
        _check_fit(source, values)
        if values.get("hmac"):
            values = {**values, "hmac": {**(source.hmac or {}), **values["hmac"]}}
        plain = {name: value for name, value in values.items() if name in _SHOWN}
        changes = super().apply(source, plain, actor)
        if "secrets" in values:
            plaintext = json.dumps(values["secrets"]).encode()
            sealed = keys.seal(SECRETS, source.environment_id, source.id, plaintext)
            source.secrets, source.secrets_key_id = sealed.box, sealed.data_key_id
            changes["secrets"] = REDACTED
        return changes

    def release(self, source: EventSource) -> None:
        if count := source.listeners.values("trigger_id").distinct().count():
            verb = "listens" if count == 1 else "listen"
            raise Conflict(
                f"{counted(count, 'trigger')} still {verb} to the source.",
                code=ErrorCode.HAS_CHILDREN,
            )


SOURCES = Sources()


def _check_fit(source: EventSource, values: dict[str, Any]) -> None:
    errors: dict[str, list[str]] = {}
    if values.get("scheme", source.scheme) != source.scheme:
        errors["scheme"] = ["It can't be changed."]
    is_hmac = source.scheme == Scheme.HMAC
    if "hmac" in values and is_hmac != (values["hmac"] is not None):
        needs = "needs it" if is_hmac else "has none"
        errors["hmac"] = [f"A source of the scheme {source.scheme} {needs}."]
    if problem := _problem_of_secrets(source.scheme, values.get("secrets", [])):
        errors["secrets"] = [problem]
    if errors:
        raise Invalid(errors)


def _problem_of_secrets(scheme: str, secrets: list[str]) -> str | None:
    """Returns what is wrong with secrets for the scheme, or None. It never repeats a secret."""
    if scheme in TOKEN_SCHEMES and not all(
        each.isascii() and each.isprintable() and each == each.strip() for each in secrets
    ):
        return "They are sent in a header: visible ASCII characters, and blanks between them."
    if scheme == Scheme.STANDARD and not all(map(_is_standard, secrets)):
        return "After whsec_ each must be base64."
    return None


def _is_standard(secret: str) -> bool:
    try:
        return bool(standard_key(secret))
    except ValueError:
        return False

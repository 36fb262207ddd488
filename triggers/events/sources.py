"""Creates, changes and deletes sources of events (SPEC §25), each with its audit event in the same transaction."""

import json
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.renderers import api_name, counted
from pipedai.events import Actor, Event, emit
from pipedai.ids import new_id
from pipedai.outgoing import standard_key
from pipedai.redaction import REDACTED
from triggers.events.signatures import TOKEN_SCHEMES
from triggers.models import SECRETS, EventSource
from triggers.states import Scheme
from workspaces.ceilings import check_ceiling
from workspaces.encryption import keys
from workspaces.files.columns import keeping_keys
from workspaces.locks import hold_role, lock_environment, lock_row
from workspaces.roles import Role

# The columns that the audit log shows.
_SHOWN = ("name", "enabled", "hmac", "key", "managed_by")

LIVE = EventSource.objects.filter(deleted_at__isnull=True)


def create_source(
    *, environment_id: UUID, values: dict[str, Any], actor: Actor, id_: UUID | None = None
) -> UUID:
    """Creates a source from a SourceBody's values, and returns its id, which is `id_` if that is given. Raises
    NotFound, Invalid for values that don't fit the scheme, CeilingReached, and the errors of `hold_role`.
    """
    source = EventSource(id=id_ or new_id(), environment_id=environment_id, scheme=values["scheme"])
    with keeping_keys():
        lock_environment(environment_id)
        hold_role(actor, environment_id, Role.ADMIN)
        check_ceiling(
            "sources",
            "sources",
            environment_id=environment_id,
            rows=LIVE.filter(environment_id=environment_id),
        )
        _apply(source, {"hmac": None, **values})
        source.save(force_insert=True)
        emit(
            _event("source.created", source, actor, {"name": source.name, "scheme": source.scheme})
        )
    return source.id


def update_source(*, source_id: UUID, values: dict[str, Any], actor: Actor) -> None:
    """Changes the given values. Raises NotFound, Invalid for values that don't fit the scheme or are fixed, and the
    errors of `hold_role`.
    """
    with keeping_keys():
        source = _locked(source_id, actor, no_key=True)
        if changes := _apply(source, values):
            source.updated_at = Now()
            # A request that takes an event may write `last_event_at` at the same time.
            source.save(update_fields=[*_SHOWN, "secrets", "secrets_key", "updated_at"])
            emit(_event("source.updated", source, actor, changes))


def delete_source(*, source_id: UUID, actor: Actor) -> None:
    """Marks a source as deleted and removes its secrets. Its events stay as long as others. Raises NotFound, Conflict
    while triggers listen to it, and the errors of `hold_role`.
    """
    with transaction.atomic():
        # This lock waits for transactions that let a trigger listen to the source.
        source = _locked(source_id, actor, no_key=False)
        if count := source.listeners.values("trigger_id").distinct().count():
            verb = "listens" if count == 1 else "listen"
            raise Conflict(
                f"{counted(count, 'trigger')} still {verb} to the source.",
                code=ErrorCode.HAS_CHILDREN,
            )
        EventSource.objects.filter(id=source.id).update(
            deleted_at=Now(), secrets=None, secrets_key=None
        )
        emit(_event("source.deleted", source, actor, {"name": source.name}))


def _locked(source_id: UUID, actor: Actor, *, no_key: bool) -> EventSource:
    return lock_row(LIVE.filter(id=source_id), actor, no_key=no_key)


def _apply(source: EventSource, values: dict[str, Any]) -> dict[str, Any]:
    """Returns the changes for the audit row, which shows no secret."""
    _check_fit(source, values)
    if values.get("hmac"):
        values = {**values, "hmac": {**(source.hmac or {}), **values["hmac"]}}
    changes: dict[str, Any] = {}
    for name in _SHOWN:
        if name in values and values[name] != getattr(source, name):
            changes[api_name(name)] = [getattr(source, name), values[name]]
            setattr(source, name, values[name])
    if "secrets" in values:
        plaintext = json.dumps(values["secrets"]).encode()
        sealed = keys.seal(SECRETS, source.environment_id, source.id, plaintext)
        source.secrets, source.secrets_key_id = sealed.box, sealed.data_key_id
        changes["secrets"] = REDACTED
    return changes


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


def _event(action: str, source: EventSource, actor: Actor, metadata: dict[str, Any]) -> Event:
    return Event(action, actor, source.environment_id, "source", source.id, metadata)

"""Creates, changes and deletes sources of events, and finds out whether a request is signed by its source.

The formats of signatures are the providers' own: GitHub's X-Hub-Signature-256, GitLab's secret token, Stripe-Signature,
Slack's v0, and webhook-signature of the Standard Webhooks specification. The functions accept any header and any bytes,
raise nothing, and compare in constant time.
"""

import base64
import hmac
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.renderers import counted
from pipedai.events import Actor
from pipedai.outgoing.posts import standard_key
from pipedai.redaction import REDACTED
from pipedai.sql import Row
from triggers.models import SECRETS, EventSource
from triggers.states import Refusal, Scheme
from workspaces.encryption import keys
from workspaces.resources import Resource

# The columns that a user sets and the audit log shows.
_SHOWN = ("name", "enabled", "hmac", "key", "managed_by")


class Sources(Resource[EventSource]):
    """The kind of row that a source is. Deleting a source keeps its events for as long as other events are kept."""

    noun = "source"
    model = EventSource
    # Another transaction may make a trigger listen to the source, so a deletion must wait for it.
    is_referred_to = True
    # Only these columns are written, because a request that takes an event may write `last_event_at` at the same time.
    written = (*_SHOWN, "secrets", "secrets_key", "updated_at")
    emptied = ("secrets", "secrets_key")
    described_by = {"scheme": "scheme"}
    tells_all = True

    def apply(self, source: EventSource, values: dict[str, Any], actor: Actor) -> dict[str, Any]:
        """Writes the values to the source. The changes that it returns for the audit row contain no secret."""
        if source._state.adding:
            source.scheme = values["scheme"]
            values = {"hmac": None, **values}
        _check_fit(source, values)
        if values.get("hmac"):
            values = {**values, "hmac": {**(source.hmac or {}), **values["hmac"]}}
        plain = {name: value for name, value in values.items() if name in _SHOWN}
        changes = super().apply(source, plain, actor)
        if "secrets" in values:
            keys.seal_into(SECRETS, source, json.dumps(values["secrets"]).encode())
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


# How far a signed timestamp may lie from our clock, either way, in seconds (Stripe, Slack and Standard Webhooks
# all say five minutes).
TOLERANCE_SECONDS = 300

_TIMESTAMP = re.compile("[0-9]{1,12}", re.ASCII)

Headers = Mapping[str, str]

# The bytes that are signed, and the signatures that the request has.
_Claim = tuple[bytes, list[str]]


def is_signed(
    scheme: str,
    *,
    options: Mapping[str, Any] | None,
    secrets: Sequence[str],
    headers: Headers,
    body: bytes,
    now: float,
) -> bool:
    """Returns whether one of the secrets signed the request. `options` are those of the scheme `hmac`, and `now` is in
    seconds since 1970. It tries every secret, so that its duration does not tell which one signed.
    """
    if scheme in TOKEN_SCHEMES:
        return _any_equal(secrets, [TOKEN_SCHEMES[scheme](headers)])
    claim = _HMACS[scheme](headers, body, now, options or {})
    if claim is None:
        return False
    signed, given = claim
    if scheme == Scheme.STANDARD:
        digests = [hmac.digest(standard_key(secret), signed, "sha256") for secret in secrets]
        return _any_equal([base64.b64encode(digest).decode() for digest in digests], given)
    digests = [hmac.digest(secret.encode(), signed, "sha256") for secret in secrets]
    return _any_equal([digest.hex() for digest in digests], [each.lower() for each in given])


def why_refused(source: Row, headers: Headers) -> Refusal:
    """Returns what is wrong with a request that none of the source's secrets signed."""
    scheme, options = source["scheme"], source["hmac"] or {}
    if not headers.get(options.get("header") or _SIGNED_IN[scheme]):
        return Refusal.UNSIGNED
    is_stale = scheme in _HMACS and _HMACS[scheme](headers, b"", source["now"], options) is None
    return Refusal.STALE if is_stale else Refusal.BAD_SIGNATURE


def _any_equal(expected: Iterable[str], given: Sequence[str]) -> bool:
    """Compares every pair, even after a match, so that the duration tells nothing."""
    sent = [_bytes(each) for each in given]
    equal = [hmac.compare_digest(one.encode(), each) for one in expected for each in sent]
    return any(equal)


def _bytes(header: str) -> bytes:
    """Returns the bytes that the sender sent. WSGI gives each byte of a header as a character."""
    return header.encode("latin-1", "replace")


def _timely(timestamp: str, now: float) -> bool:
    is_number = _TIMESTAMP.fullmatch(timestamp) is not None
    return is_number and abs(int(timestamp) - now) <= TOLERANCE_SECONDS


def _after(prefix: str, value: str) -> list[str]:
    return [value.removeprefix(prefix)] if value.startswith(prefix) else []


def _standard(headers: Headers, body: bytes, now: float, _: Mapping[str, Any]) -> _Claim | None:
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not message_id or not _timely(timestamp, now):
        return None
    # The header has a list of signatures. Signatures of other versions are ignored.
    given = headers.get("webhook-signature", "").split(" ")
    signed = _bytes(f"{message_id}.{timestamp}.") + body
    return signed, [each for one in given for each in _after("v1,", one)]


def _github(headers: Headers, body: bytes, _: float, __: Mapping[str, Any]) -> _Claim:
    return body, _after("sha256=", headers.get("x-hub-signature-256", ""))


def _stripe(headers: Headers, body: bytes, now: float, _: Mapping[str, Any]) -> _Claim | None:
    parts = [part.partition("=")[::2] for part in headers.get("stripe-signature", "").split(",")]
    timestamp = next((value for name, value in parts if name == "t"), "")
    if not _timely(timestamp, now):
        return None
    return f"{timestamp}.".encode() + body, [value for name, value in parts if name == "v1"]


def _slack(headers: Headers, body: bytes, now: float, _: Mapping[str, Any]) -> _Claim | None:
    timestamp = headers.get("x-slack-request-timestamp", "")
    if not _timely(timestamp, now):
        return None
    return f"v0:{timestamp}:".encode() + body, _after("v0=", headers.get("x-slack-signature", ""))


def _hmac(headers: Headers, body: bytes, now: float, options: Mapping[str, Any]) -> _Claim | None:
    given = _after(options["prefix"], headers.get(options["header"], ""))
    if options["timestampHeader"] is None:
        return body, given
    timestamp = headers.get(options["timestampHeader"], "")
    return (f"{timestamp}.".encode() + body, given) if _timely(timestamp, now) else None


# The header that holds the signature or the secret. A source of the scheme `hmac` names its header itself.
_SIGNED_IN: Mapping[str, str] = {
    Scheme.STANDARD: "webhook-signature",
    Scheme.GITHUB: "x-hub-signature-256",
    Scheme.GITLAB: "x-gitlab-token",
    Scheme.STRIPE: "stripe-signature",
    Scheme.SLACK: "x-slack-signature",
    Scheme.BEARER: "authorization",
}

_HMACS: Mapping[str, Callable[[Headers, bytes, float, Mapping[str, Any]], _Claim | None]] = {
    Scheme.STANDARD: _standard,
    Scheme.GITHUB: _github,
    Scheme.STRIPE: _stripe,
    Scheme.SLACK: _slack,
    Scheme.HMAC: _hmac,
}


def _bearer(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


# The schemes that send the secret itself, with how to read it from the headers.
TOKEN_SCHEMES: Mapping[str, Callable[[Headers], str]] = {
    Scheme.GITLAB: lambda headers: headers.get("x-gitlab-token", ""),
    Scheme.BEARER: _bearer,
}

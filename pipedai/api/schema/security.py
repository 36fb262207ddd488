"""Describes how callers authenticate, with a security scheme for each kind of credential (SPEC §3)."""

from typing import Any

from rest_framework.authentication import BaseAuthentication

from pipedai.api.authentication import AUTH_COOKIE, BearerAuthentication, RefuseTheRest
from pipedai.api.schema.operation import Schema

_BEARERS = {
    "pwk": ("apiKey", "An API key: external systems and scripts, in its one environment."),
    "wkt": ("workerToken", "A worker's token, which registering gives: the worker protocol."),
    "hos": (
        "hostKey",
        "A host's key, which enrolling gives: the workers that the host brought in.",
    ),
    "wrk": ("registrationToken", "A registration token, which registers one worker, once."),
}


def registration_token() -> dict[str, list[str]]:
    """Returns the security requirement of a `wrk_` token."""
    return {_BEARERS["wrk"][0]: []}


def requirement(authenticator: BaseAuthentication) -> dict[str, list[str]] | None:
    """Returns the security requirement of an authentication class, or None for `RefuseTheRest`, which accepts none."""
    if isinstance(authenticator, RefuseTheRest):
        return None
    if isinstance(authenticator, BearerAuthentication):
        return {_BEARERS[authenticator.prefix][0]: []}
    return {"session": []}


def schemes() -> dict[str, Any]:
    """Returns the descriptions of the kinds of credential (OpenAPI's security schemes) that `requirement` names."""
    bearers: dict[str, Schema] = {
        name: {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": f"{prefix}_…",
            "description": description,
        }
        for prefix, (name, description) in _BEARERS.items()
    }
    session: Schema = {
        "type": "apiKey",
        "in": "cookie",
        "name": AUTH_COOKIE,
        "description": "A person's session in a browser: the cookie that register and login set.",
    }
    return {"session": session, **bearers}

"""A message that is sent over HTTP, its signatures, and its answer (SPEC §7).

All webhooks are signed here, by `X-Pipedai-Signature` and the Standard Webhooks specification.
"""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from pipedai.api.outside_urls import MAX_HOST

_STANDARD_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Post:
    """A request. Its URL, headers and body may hold secrets, so they are not in its `repr`."""

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    method: str = "POST"


def host_of(url: str) -> str:
    """Returns the host in a URL, by which senders limit requests, or "". It raises nothing, because a URL that older
    rules accepted must not keep a run from ending.
    """
    try:
        return (urlsplit(url).hostname or "")[:MAX_HOST]
    except ValueError:
        return ""


def signed_post(url: str, *, message_id: str, body: str, secret: str | None, now: datetime) -> Post:
    """`secret` is the webhook's, or None for no signatures; `now` is when the request is sent."""
    sent = body.encode()
    signed = webhook_headers(message_id=message_id, body=sent, secret=secret, now=now)
    headers = {"Content-Type": "application/json", "User-Agent": "PipedAI-Webhooks/1", **signed}
    return Post(url, sent, headers)


def webhook_headers(
    *, message_id: str, body: bytes, secret: str | None, now: datetime
) -> dict[str, str]:
    """Returns the headers with a message's id, time and, with a secret, signatures."""
    timestamp = str(int(now.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    if secret is None:
        return headers
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(standard_key(secret), signed, "sha256")).decode()
    return {
        **headers,
        "webhook-signature": f"v1,{signature}",
        "X-Pipedai-Signature": f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}",
    }


def standard_key(secret: str) -> bytes:
    """The rest of a secret after `whsec_` is the key in base64, else ValueError is raised. Otherwise the bytes of the
    secret are the key.
    """
    if secret.startswith(_STANDARD_PREFIX):
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    return secret.encode()


class Result(StrEnum):
    # The receiver has taken the message.
    TAKEN = "taken"
    # The receiver refuses the message. Sending it again would change nothing.
    REFUSED = "refused"
    # The receiver may take the message later. The message is given up after a number of such answers.
    AGAIN = "again"
    # The service's own mail server can't be reached, or refuses the service itself. This says nothing about the
    # message, so the message waits for the server.
    AWAY = "away"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request over HTTP. `error` says in a few words, without an address, why no complete answer came,
    or is None; `status_code` may be set beside it. `body` is the beginning of the answer, or all of it: the function
    that asked says which. `challenge` has all headers WWW-Authenticate, as one list (RFC 9110 §5.3).
    """

    status_code: int | None
    duration_ms: int
    error: str | None = None
    body: bytes | None = None
    retry_after: str | None = None
    challenge: str | None = None

    @property
    def json_object(self) -> dict[str, Any] | None:
        """The body, if it is a JSON object in UTF-8, or None."""
        try:
            value = json.loads((self.body or b"").decode())
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    @property
    def result(self) -> Result:
        code = self.status_code
        if self.error is not None or code is None:
            return Result.AGAIN
        if 200 <= code < 300:
            return Result.TAKEN
        return Result.AGAIN if code == 429 or code >= 500 else Result.REFUSED


@dataclass(frozen=True, slots=True)
class OwnAnswer(Answer):
    """An answer from a mail server, or from our code if it could not make the message, with its result given."""

    means: Result = Result.AGAIN

    @property
    def result(self) -> Result:
        return self.means

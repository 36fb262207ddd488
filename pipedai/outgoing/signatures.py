"""Signs webhooks with `X-Pipedai-Signature` and with the headers of the Standard Webhooks specification (SPEC §7).

All messages to customers' webhooks are signed here, whatever they are about.
"""

import base64
import hmac
from datetime import datetime

from pipedai.outgoing.posts import Post

_STANDARD_PREFIX = "whsec_"


def signed_post(url: str, *, message_id: str, body: str, secret: str | None, now: datetime) -> Post:
    """Returns the request that sends the JSON text `body` to a webhook.

    `secret` is the secret of the webhook, or None for a message without signatures. `now` is when the request is sent.
    """
    sent = body.encode()
    signed = webhook_headers(message_id=message_id, body=sent, secret=secret, now=now)
    headers = {"Content-Type": "application/json", "User-Agent": "PipedAI-Webhooks/1", **signed}
    return Post(url, sent, headers)


def webhook_headers(
    *, message_id: str, body: bytes, secret: str | None, now: datetime
) -> dict[str, str]:
    """Returns the headers with the id, the time and the signatures of a message. Without a secret there are no
    signatures.
    """
    timestamp = str(int(now.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": timestamp}
    if secret is None:
        return headers
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signature = base64.b64encode(hmac.digest(_standard_key(secret), signed, "sha256")).decode()
    return {
        **headers,
        "webhook-signature": f"v1,{signature}",
        "X-Pipedai-Signature": f"sha256={hmac.digest(secret.encode(), body, 'sha256').hex()}",
    }


def _standard_key(secret: str) -> bytes:
    """Returns the key for the Standard Webhooks signature.

    If the secret begins with `whsec_`, the rest of it is the key in base64. Otherwise the bytes of the secret are the
    key.
    """
    if secret.startswith(_STANDARD_PREFIX):
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX))
    return secret.encode()

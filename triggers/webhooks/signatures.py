"""Signs webhooks: `X-Pipedai-Signature`, and beside it the headers of the Standard Webhooks spec (SPEC §7)."""

import base64
import hmac
from datetime import datetime

_STANDARD_PREFIX = "whsec_"


def webhook_headers(
    *, message_id: str, body: bytes, secret: str | None, now: datetime
) -> dict[str, str]:
    """The headers that name, date and sign a message. Without a secret, none that signs."""
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
    """The bytes after `whsec_`, or those of any other secret as they are."""
    if secret.startswith(_STANDARD_PREFIX):
        return base64.b64decode(secret.removeprefix(_STANDARD_PREFIX))
    return secret.encode()

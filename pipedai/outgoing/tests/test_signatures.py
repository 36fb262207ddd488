"""A receiver can verify the signatures of webhook_headers, with a public library and by hand."""

import base64
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from pipedai.outgoing.posts import webhook_headers
from testing.world.cases import cases

BODY = '{"runId":"é🙂"}'.encode()
STANDARD = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
PLAIN = "an ordinary secret – with ünïcode"


def headers_for(secret: str | None, body: bytes = BODY) -> dict[str, str]:
    return webhook_headers(message_id="msg_1", body=body, secret=secret, now=datetime.now(UTC))


def test_a_standard_secret_verifies_with_the_public_library():
    Webhook(STANDARD).verify(BODY, headers_for(STANDARD))


def test_any_other_secret_verifies_there_as_its_bytes():
    encoded = base64.b64encode(PLAIN.encode()).decode()
    Webhook(encoded).verify(BODY, headers_for(PLAIN))


def test_another_body_does_not_verify():
    with pytest.raises(WebhookVerificationError):
        Webhook(STANDARD).verify(BODY + b" ", headers_for(STANDARD))


@cases("secret", [STANDARD, PLAIN])
def test_the_legacy_header_verifies_with_the_bytes_of_the_secret_as_given(secret):
    headers, body = headers_for(secret), BODY
    expected = "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()
    assert hmac.compare_digest(expected, headers["X-Pipedai-Signature"])


def test_without_a_secret_nothing_is_signed():
    assert sorted(headers_for(None)) == ["webhook-id", "webhook-timestamp"]


def test_the_timestamp_is_in_whole_seconds():
    headers = webhook_headers(
        message_id="m", body=b"", secret=None, now=datetime(2026, 1, 1, 0, 0, 5, 999999, tzinfo=UTC)
    )
    assert headers["webhook-timestamp"] == "1767225605"

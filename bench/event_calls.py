"""Makes sources of events, and the requests with which these would send them."""

import hmac
import json
from collections.abc import Iterator
from dataclasses import dataclass

from bench.cast import Customer
from bench.http_client import BASE_PATH, HOST

_SECRET = "a-secret-of-the-benchmark"


@dataclass(frozen=True, slots=True)
class Source:
    """A source of events that signs as GitHub does."""

    id: str

    def requests(self, address: str | None = None, secret: str = _SECRET) -> Iterator[bytes]:
        """Yield the requests of one event after another, none like another. With another secret they are not signed."""
        number = 0
        while True:
            number += 1
            yield _request(self.id, number, address, secret)


def make_source(customer: Customer, environment_id: str) -> Source:
    made = customer.post(
        f"/environments/{environment_id}/sources", name="Bench", scheme="github", secrets=[_SECRET]
    )
    return Source(made["id"])


def _request(source_id: str, number: int, address: str | None, secret: str) -> bytes:
    # About as long as what GitHub sends of an issue's comment.
    body = json.dumps({"action": "created", "number": number, "comment": "x" * 4000}).encode()
    forwarded = f"X-Forwarded-For: {address}\r\n" if address else ""
    head = (
        f"POST {BASE_PATH}/hooks/{source_id} HTTP/1.1\r\nHost: {HOST}\r\n{forwarded}"
        f"X-GitHub-Event: issue_comment\r\nX-Hub-Signature-256: sha256="
        f"{hmac.digest(secret.encode(), body, 'sha256').hex()}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body

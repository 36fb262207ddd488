"""How tests enroll hosts over HTTP."""

from typing import Any

from testing.world.cast import browser

MACHINE = {"hostname": "build-2", "os": "linux", "version": "0.1.0"}


def issue(cast: Any, **body: Any) -> Any:
    """A new code, as the API answers it to an admin."""
    url = f"/api/v1/environments/{cast.environment.id}/enrollments"
    answer = cast.client(cast.admin).post(url, body)
    assert answer.status_code == 201, answer.content
    return answer.json()


def redeem(**body: Any) -> Any:
    """The answer to a host that redeems."""
    return browser().post("/api/v1/enrollments/redeem", {**MACHINE, **body})


def begin(**body: Any) -> Any:
    """The answer to a host that begins a pairing."""
    return browser().post("/api/v1/enrollments/device", body, HTTP_USER_AGENT="node")

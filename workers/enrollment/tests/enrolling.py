"""Helps tests to enroll hosts over HTTP."""

from typing import Any

from testing.world.cast import browser

MACHINE = {"hostname": "build-2", "os": "linux", "version": "0.1.0"}


def issue(cast: Any, **body: Any) -> Any:
    """Issues a code as an admin, and returns the API's answer."""
    url = f"/api/v1/environments/{cast.environment.id}/enrollments"
    answer = cast.client(cast.admin).post(url, body)
    assert answer.status_code == 201, answer.content
    return answer.json()


def redeem(**body: Any) -> Any:
    """Redeems as a host, and returns the answer."""
    return browser().post("/api/v1/enrollments/redeem", {**MACHINE, **body})


def begin(**body: Any) -> Any:
    """Begins a pairing as a host, and returns the answer."""
    return browser().post("/api/v1/enrollments/device", body, HTTP_USER_AGENT="node")

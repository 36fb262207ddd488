"""Checks are made in this order: size, route, `Accept`, credentials, method, origin, throttle, visibility,
role, body, state.

Each request of these tests has two faults, and must be answered for the one that is checked first. That the size comes
before all others is tried in test_over_http.py.
"""

import json
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest
from django.test import Client

from pipedai.api import throttling
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.api.throttling import TooManyRequests
from testing.world.cast import browser, session_cookie

NOTHING = "01a20e5f-a31e-7453-b4da-bc1dd526bdec"


@dataclass
class Call:
    """A call that adds a member. It has no fault until a test adds one."""

    method: str = "POST"
    environment: str = ""
    suffix: str = ""
    who: str | None = "admin"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})
    body: bytes | None = None
    is_member_already: bool = False
    is_one_too_many: bool = False

    def path(self, cast: Any) -> str:
        environment = self.environment or cast.environment.id
        return f"/api/v1/environments/{environment}/members{self.suffix}"

    def content(self, cast: Any) -> bytes:
        user = cast.operator if self.is_member_already else cast.stranger
        return self.body or json.dumps({"userId": str(user.id), "role": "viewer"}).encode()

    def cookie(self, cast: Any) -> str:
        return session_cookie(getattr(cast, self.who)) if self.who else ""


def header(name: str, value: str) -> Any:
    return lambda call: call.headers.update({name: value})


def having(**values: Any) -> Any:
    def set_values(call: Call) -> None:
        for name, value in values.items():
            setattr(call, name, value)

    return set_values


# The faults, in the order of the checks: a name, a function that adds the fault to a call, and the answer's status.
FAULTS = [
    ("route", having(suffix="/"), 404),
    ("accept", header("Accept", "text/html"), 406),
    ("credentials", having(who=None), 401),
    ("method", having(method="PUT"), 405),
    ("origin", header("Origin", "https://evil.example"), 403),
    ("throttle", having(is_one_too_many=True), 429),
    ("visibility", having(environment=NOTHING), 404),
    ("role", having(who="viewer"), 403),
    ("body", header("Content-Encoding", "gzip"), 415),
    ("body", header("Content-Type", "text/plain"), 415),
    ("body", having(body=b"{"), 400),
    ("body", having(body=b'{"nmae": "x"}'), 400),
    ("state", having(is_member_already=True), 409),
]
PAIRS = [(one, two) for one, two in combinations(FAULTS, 2) if one[0] != two[0]]


def broken(*faults: Any) -> Call:
    """Returns a call with these faults. It adds the first one last, so that this one wins if both change one value."""
    call = Call()
    for _, break_, _ in reversed(faults):
        break_(call)
    return call


def status_of(call: Call, cast: Any) -> int:
    """Sends the call to the ASGI application, and returns the status of the answer."""
    client = Client()
    client.cookies[AUTH_COOKIE] = call.cookie(cast)
    if call.who is None:
        client.cookies.clear()
    return client.generic(
        call.method,
        call.path(cast),
        call.content(cast),
        content_type=call.headers["Content-Type"],
        headers=call.headers,
    ).status_code


def refuse(rate, key):
    raise TooManyRequests("Too many requests.")


def answered(call: Call, cast: Any) -> int:
    """Sends the call, every throttled one of which may be one too many, and returns the status of the answer."""
    with pytest.MonkeyPatch.context() as patch:
        if call.is_one_too_many:
            patch.setattr(throttling, "check_rate", refuse)
        return status_of(call, cast)


def test_without_a_fault_it_goes_through(cast):
    assert status_of(Call(), cast) == 201


def test_each_fault_alone_is_answered(cast):
    for fault in FAULTS:
        assert answered(broken(fault), cast) == fault[2], fault


def test_of_two_faults_the_earlier_one_is_answered(cast):
    for earlier, later in PAIRS:
        assert answered(broken(earlier, later), cast) == earlier[2], (earlier, later)


def test_credentials_come_before_the_body_of_a_registration(cast):
    used = cast.mint("wrk")
    body = {"token": used, "hostname": "h", "os": "linux", "version": "1"}
    assert browser().post("/api/v1/workers/register", body).status_code == 201
    assert browser().post("/api/v1/workers/register", {"token": used}).status_code == 401
    assert browser().post("/api/v1/workers/register", {}).status_code == 401
    fresh = cast.mint("wrk")
    assert browser().post("/api/v1/workers/register", {"token": fresh}).status_code == 400


class TestACompressedBody:
    @pytest.mark.parametrize("path", ["workspaces", "auth/login", "auth/logout"])
    def test_is_a_415_also_where_nobody_reads_it(self, cast, path):
        client = cast.client(cast.owner)
        for coding in ("gzip", "GZIP", "br", "identity, gzip", "x"):
            answer = client.post(
                f"/api/v1/{path}", {"name": "x"}, headers={"Content-Encoding": coding}
            )
            assert answer.status_code == 415, coding
            assert answer.json() == {
                "error": "The body must not be compressed.",
                "code": "unsupported_media_type",
            }

    def test_one_that_is_not_passes(self, cast):
        client = cast.client(cast.owner)
        for coding in ("identity", "", "Identity"):
            headers = {"Content-Encoding": coding}
            answer = client.post("/api/v1/workspaces", {"name": "x"}, headers=headers)
            assert answer.status_code == 201, coding

    def test_none_at_all_passes(self, cast):
        cast.client(cast.owner)
        answer = cast.client(cast.owner).get(
            "/api/v1/auth/me", headers={"Content-Encoding": "gzip"}
        )
        assert answer.status_code == 200

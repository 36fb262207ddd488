"""What is checked first (SPEC §2): route, credentials, method, origin, visibility, role, body, state.

Each request has two faults; the earlier one is answered.
"""

import pytest

from pipedai.api import throttling
from pipedai.api.throttling import TooManyRequests
from testing.cast import browser
from triggers.models import Trigger

FOREIGN = {"HTTP_ORIGIN": "https://evil.example"}
NOTHING = "01a20e5f-a31e-7453-b4da-bc1dd526bdec"


@pytest.fixture
def send(cast):
    """Sends `method path` as somebody; the status."""
    Trigger.objects.update(enabled=False)

    def sending(who, method, path, body=None, **headers):
        people = {"nobody": browser()}
        client = people.get(who) or cast.client(getattr(cast, who))
        url = path.format(environment=cast.environment.id, trigger=cast.trigger_id)
        kwargs = {} if method == "GET" else {"data": {} if body is None else body}
        if method not in {"GET", "POST"}:
            return client.generic(method, f"/api/v1/{url}", **headers).status_code
        return getattr(client, method.lower())(f"/api/v1/{url}", **kwargs, **headers).status_code

    return sending


MEMBERS = "environments/{environment}/members"
KEYS, RUN = "environments/{environment}/api-keys", "triggers/{trigger}/run"
TYPO = {"nmae": "x"}


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("nobody", "GET", "nothing"), 404),
        (("nobody", "PUT", KEYS), 401),
        (("nobody", "POST", KEYS, TYPO), 401),
        (("nobody", "GET", f"triggers/{NOTHING}"), 401),
        (("nobody", "POST", f"triggers/{NOTHING}/run"), 401),
        (("owner", "PUT", KEYS, None, FOREIGN), 405),
        (("stranger", "PUT", KEYS), 405),
        (("viewer", "PUT", KEYS), 405),
        (("stranger", "POST", KEYS, TYPO, FOREIGN), 403),
        (("owner", "POST", KEYS, TYPO, FOREIGN), 403),
        (("owner", "POST", f"triggers/{NOTHING}/run", None, FOREIGN), 403),
        (("stranger", "POST", KEYS, TYPO), 404),
        (("stranger", "POST", RUN, TYPO), 404),
        (("viewer", "POST", KEYS, TYPO), 403),
        (("viewer", "POST", RUN, TYPO), 403),
        (("viewer", "POST", RUN), 403),
        (("operator", "POST", RUN, TYPO), 400),
        (("operator", "POST", RUN), 409),
    ],
    ids=lambda value: (
        " ".join(str(part) for part in value[:3]) if isinstance(value, tuple) else None
    ),
)
def test_the_earlier_fault_is_answered(send, request_, status):
    who, method, path, body, headers = (*request_, None, None)[:5]
    assert send(who, method, path, body, **(headers or {})) == status


def test_credentials_come_before_the_body_of_a_registration(cast):
    used = cast.mint("wrk")
    body = {"token": used, "hostname": "h", "os": "linux", "version": "1"}
    assert browser().post("/api/v1/workers/register", body).status_code == 201
    assert browser().post("/api/v1/workers/register", {"token": used}).status_code == 401
    assert browser().post("/api/v1/workers/register", {}).status_code == 401
    fresh = cast.mint("wrk")
    assert browser().post("/api/v1/workers/register", {"token": fresh}).status_code == 400


@pytest.fixture
def exhausted(monkeypatch):
    """Every throttled call is one too many."""

    def refuse(rate, key):
        raise TooManyRequests("Too many requests.")

    monkeypatch.setattr(throttling, "check_rate", refuse)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (("owner", "POST", MEMBERS, None, FOREIGN), 403),
        (("owner", "POST", MEMBERS), 429),
        (("stranger", "POST", MEMBERS), 429),
        (("viewer", "POST", MEMBERS), 429),
        (("owner", "POST", MEMBERS, TYPO), 429),
        (("nobody", "POST", MEMBERS), 401),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_throttle_comes_after_the_origin_and_before_visibility(send, exhausted, request_, status):
    who, method, path, body, headers = (*request_, None, None)[:5]
    assert send(who, method, path, body, **(headers or {})) == status

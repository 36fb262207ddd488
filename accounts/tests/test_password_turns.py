"""Requests that hash a password wait for their turn without a thread; the endpoints are the real ones."""

import asyncio
import json
import logging
from urllib.parse import urlencode

import pytest
from django.db import connections

from accounts.models import Session, User
from accounts.sessions import Device, open_staff_session
from audit.models import AuditEntry
from pipedai.server.lanes import PermitLane, WsgiLane, may_hash
from pipedai.server.tests.asgi_exchange import Exchange, http_scope
from pipedai.server.turns import Turns
from pipedai.sql import fetch_one
from pipedai.wsgi import application
from testing.world.cast import session_cookie
from testing.world.users import PASSWORD, UserFactory

ADA = "ada@example.com"
LOGIN = "/api/v1/auth/login"
CSRF = "a" * 32
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def ada(own_database):
    return UserFactory.create(email=ADA, is_staff=True)


@pytest.fixture
def lane(own_database):
    """Returns the password lane of a web process that has one thread and hashes one password at a time."""
    lane = Lane()
    yield lane
    lane.close()


class Lane:
    """A password lane before the real endpoints, as in a web process."""

    def __init__(self):
        self.turns = Turns(1)
        self._threads = WsgiLane(application, threads=1)

    def close(self):
        """Closes the database connection of its thread, and ends the thread."""
        threads = self._threads._pool
        threads.submit(connections.close_all).result(60)
        threads.shutdown()

    def ask(self, path, body, *, patience=60.0, cookies=None):
        """Sends one request, and returns it together with its answer."""
        if isinstance(body, dict):
            is_api = path.startswith("/api/")
            content_type = "application/json" if is_api else FORM
            body = (json.dumps(body) if is_api else urlencode(body)).encode()
        headers = {
            "host": "localhost",
            "sec-fetch-site": "same-origin",
            "content-type": content_type,
            "content-length": str(len(body)),
            "cookie": "; ".join(f"{name}={value}" for name, value in (cookies or {}).items()),
        }
        request = Exchange(http_scope("POST", path, headers=headers), [body])
        assert may_hash(request.scope)
        lane = PermitLane(self._threads, self.turns, patience=patience)
        asyncio.run(lane.serve(request.scope, request.receive, request.send))
        return request


def door(name, user):
    """Returns the path, body and cookies of a request that hashes, and the status that it gets at its turn."""
    known = {"email": ADA, "password": PASSWORD}
    changed = {"currentPassword": PASSWORD, "newPassword": "another long one"}
    own = {"auth_token": session_cookie(user)}
    csrf = {"staff_csrf": CSRF}
    token = {"csrfmiddlewaretoken": CSRF}
    return {
        "login": (LOGIN, known, {}, 200),
        "login of nobody": (LOGIN, {**known, "email": "no@example.com"}, {}, 401),
        "register": ("/api/v1/auth/register", {**known, "email": "bob@example.com"}, {}, 201),
        "change-password": ("/api/v1/auth/change-password", changed, own, 204),
        "console": ("/console/sign-in", known, {}, 303),
        "admin login": ("/admin/login/", known | token, csrf, 302),
        "admin account": (
            "/admin/account/",
            {"current": PASSWORD, "new": "another long one", "change-password": "1"} | token,
            csrf | {"staff_session": open_staff_session(user, Device(b"", None, "")).session_key},
            302,
        ),
    }[name]


DOORS = (
    "login",
    "login of nobody",
    "register",
    "change-password",
    "console",
    "admin login",
    "admin account",
)


def everything():
    """Returns all rows that a login, a registration or a change of password may write."""
    return (
        list(User.objects.order_by("id").values_list("email", "password")),
        [
            str(row)
            for row in Session.objects.order_by("id").values_list("id", "revoked_at", "data")
        ],
        AuditEntry.objects.count(),
    )


@pytest.mark.parametrize("name", DOORS)
def test_beyond_the_patience_it_is_503_and_nothing_was_done(ada, lane, name):
    path, body, cookies, _ = door(name, ada)
    before = everything()
    lane.turns.ask("198.51.100.9", 1, wake=lambda _: None)
    answer = lane.ask(path, body, cookies=cookies, patience=0.05)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    if path.startswith("/api/"):
        assert answer.json == {
            "error": "Too many logins at this moment: try again in a second.",
            "code": "overloaded",
        }
    else:
        assert "Too many logins at this moment" in answer.body.decode()
    assert everything() == before
    assert lane.turns.waiting == 0


@pytest.mark.parametrize("name", DOORS)
def test_with_a_turn_it_is_done_once_and_counted_once(ada, lane, name, caplog):
    path, body, cookies, status = door(name, ada)
    entries = AuditEntry.objects.count()
    with caplog.at_level(logging.ERROR):
        assert lane.ask(path, body, cookies=cookies).status == status
    assert caplog.records == [], "the first answer, which nobody gets, is no error"
    assert AuditEntry.objects.count() == entries + (name != "login of nobody")
    assert lane.turns.free == 1
    counted = fetch_one("SELECT min(hits) AS least, max(hits) AS most FROM throttle", {})
    assert counted == {"least": 1, "most": 1}


def test_what_is_invalid_or_throttled_waits_for_nobody(ada, lane):
    lane.turns.ask("198.51.100.9", 1, wake=lambda _: None)
    assert lane.ask(LOGIN, {"email": ADA}).status == 400
    assert lane.ask(LOGIN, {"email": f"{ADA}\x1f", "password": PASSWORD}).status == 400
    answers = [lane.ask(LOGIN, {"email": ADA, "password": "x"}, patience=0.01) for _ in range(9)]
    assert [answer.status for answer in answers] == [503] * 9
    throttled = lane.ask(LOGIN, {"email": ADA, "password": PASSWORD})
    assert (throttled.status, throttled.json["code"]) == (429, "throttled")
    assert lane.turns.waiting == 0


def test_each_attempt_is_counted_once_whatever_comes_of_it(ada, lane):
    answers = [lane.ask(LOGIN, {"email": ADA, "password": "x"}).status for _ in range(12)]
    assert answers == [401] * 10 + [429] * 2

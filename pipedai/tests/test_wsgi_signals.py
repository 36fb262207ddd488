"""For calls of the API our handler does itself what Django does by signals before and after each request."""

from functools import partial
from typing import Any

from django.core.handlers.wsgi import WSGIHandler

from pipedai import wsgi
from pipedai.tests.test_wsgi import environ
from pipedai.wsgi import application
from testing.world.users import PASSWORD


def test_both_ways_answer_the_same(committed_cast, monkeypatch):
    cast = committed_cast
    login = {"email": cast.owner.email, "password": PASSWORD}
    refreshed = []
    monkeypatch.setattr(wsgi, "close_old_connections", lambda: refreshed.append(1))
    for request in (
        ("POST", "/api/v1/auth/login", "", login),
        ("GET", "/api/v1/nowhere"),
        ("GET", "/api/v1/auth/me"),
    ):
        shown = []
        for way in (application, partial(WSGIHandler.__call__, application)):
            begun: list[Any] = []
            answered: Any = way(environ(*request), lambda *start, begun=begun: begun.append(start))
            body = b"".join(answered)
            getattr(answered, "close", lambda: None)()
            ((status, headers),) = begun
            shown.append((status, sorted(name for name, _ in headers), len(body)))
        assert shown[0] == shown[1]
        assert (request[0] == "POST") == ("Set-Cookie" in shown[0][1])
    assert len(refreshed) == 6

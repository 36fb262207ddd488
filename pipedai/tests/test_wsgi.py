"""API calls that skip Django's middleware get the same answers as those that go through it."""

import json
import os
from io import BytesIO
from typing import Any
from urllib.parse import urlencode

import pytest

from pipedai.server.outer import LOG
from pipedai.wsgi import application
from testing.processes.warm_start import SERVICE
from testing.world.cast import session_cookie
from testing.world.routes import ROUTES

pytestmark = pytest.mark.django_db

# Calls with this header go through the middleware, which adds nothing to the answer for this origin.
ELSEWHERE = {"HTTP_ORIGIN": "https://elsewhere.example"}


def answer(method, url, query="", body=None, **headers):
    """Returns status, headers and body. It sends no signals, on which Django would close the test's connection."""
    response: Any = application.get_response(
        application.request_class(environ(method, url, query, body, **headers))
    )
    return response.status_code, dict(response.items()), response.content


def environ(method, url, query="", body=None, **headers):
    """Returns a request as a server hands it to a WSGI application."""
    sent = b"" if body is None else json.dumps(body).encode()
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": url,
        "QUERY_STRING": query,
        "CONTENT_LENGTH": str(len(sent)),
        "CONTENT_TYPE": "application/json" if sent else "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": BytesIO(sent),
        "wsgi.url_scheme": "http",
        **headers,
    }


def same_both_ways(*request, **more):
    """Asserts that the answer is the same both ways, and returns it."""
    short, long = answer(*request, **more), answer(*request, **{**more, **ELSEWHERE})
    long[1].setdefault("Content-Length", str(len(long[2])))  # It is missing if the Host is refused.
    assert short == long
    return short


@pytest.mark.parametrize(
    "route",
    [
        r
        for r in ROUTES
        if r.method == "GET" and not r.route.endswith(("/stream", "overview", "health", "poll"))
    ],
    ids=str,
)
def test_whatever_can_be_read(stage, route):
    cast = stage.cast
    if route.of_workers:
        caller = {"HTTP_AUTHORIZATION": f"Bearer {cast.worker.worker_token}"}
    elif route.of_hosts:
        caller = {"HTTP_AUTHORIZATION": f"Bearer {cast.mint('pwk', role='admin')}"}
    else:
        caller = {"HTTP_COOKIE": f"auth_token={session_cookie(cast.owner)}"}
    query = urlencode(route.body(cast))
    assert same_both_ways("GET", route.url(stage), query, **caller)[0] == 200


@pytest.mark.parametrize(
    ("method", "url", "headers", "status"),
    [
        ("GET", "/api/v1/nowhere", {}, 404),
        ("GET", "/api/v1/workspaces/", {}, 404),
        ("GET", "/api/v1/workspaces", {}, 401),
        ("PUT", "/api/v1/health", {}, 405),
        ("HEAD", "/api/v1/health/live", {}, 200),
        ("GET", "/api/v1/auth/me", {"HTTP_HOST": "evil.example"}, 400),
        ("GET", "/api/v1/auth/me", {"HTTP_HOST": "a b"}, 400),
        ("POST", "/api/v1/workers/register", {}, 401),
        ("OPTIONS", "/api/v1/health", {}, 405),
    ],
)
def test_refusals(method, url, headers, status):
    body = {"hostname": 7} if method == "POST" else None
    assert same_both_ways(method, url, body=body, **headers)[0] == status


@pytest.mark.parametrize("host", ["10.0.0.10", "10.0.0.10:8000", "[fd00::1]", "any.example", "a b"])
@pytest.mark.parametrize("url", ["/api/v1/health", "/api/v1/health/live"])
def test_probes_may_call_by_any_host(url, host):
    assert same_both_ways("GET", url, HTTP_HOST=host)[0] == 200


def test_a_scrape_by_any_host_gets_a_404_where_there_are_no_metrics():
    assert answer("GET", "/metrics", HTTP_HOST="10.0.0.10")[0] == 404


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("evil.example", "'evil.example'"),
        ("10.0.0.10:8000", "'10.0.0.10:8000'"),
        ("a\r\nb\x1b[31m", r"'a\r\nb\x1b[31m'"),
        ("é\u202e", r"'\xe9\u202e'"),
        ("x" * 5000, repr("x" * 100)),
    ],
)
@pytest.mark.parametrize("url", ["/api/v1/auth/me", "/admin/login/"])
def test_a_refused_host_is_told_to_the_log_with_its_setting(url, host, told):
    said: dict[str, Any] = {}
    status, _, body = answer("GET", url, HTTP_HOST=host, **{"asgi.scope": {LOG: said}})
    assert status == 400
    assert said["refused"] == f"The Host {told} is not in ALLOWED_HOSTS."
    assert host.encode() not in body


def test_a_crash(monkeypatch):
    def crash(*_args, **_kwargs):
        raise RuntimeError("told you")

    monkeypatch.setattr("pipedai.api.service.HealthViewSet.live", crash)
    status, _, body = same_both_ways("GET", "/api/v1/health/live")
    assert status == 500
    assert b"told you" not in body


def test_a_page_that_is_no_api_keeps_its_middleware():
    status, _, body = answer("GET", "/admin/login/")
    assert status == 200
    assert b"csrfmiddlewaretoken" in body


def test_the_application_finds_its_settings_without_a_variable():
    environment = {**os.environ}
    del environment["DJANGO_SETTINGS_MODULE"]
    program = "import pipedai.asgi; print(pipedai.asgi.application)"
    SERVICE.run(["-c", program], environment).check_returncode()

"""The served API gives errors of every layer in JSON, adds headers to every answer, and logs no secret."""

import re
from http import HTTPStatus

import httpx
from django.conf import settings

from pipedai.api import tokens
from pipedai.api.authentication import AUTH_COOKIE
from pipedai.api.tests.test_order import FAULTS, broken
from testing.world.cast import make_cast, session_cookie
from testing.world.users import PASSWORD

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "server": "pipedai",
}


def test_a_served_api(server, subtests):
    """All is one test, because starting the server takes longer than all the requests here."""
    for part in (
        _every_error_is_json_with_the_same_headers,
        _a_form_is_read_in_no_codec_that_its_sender_names,
        _the_largest_body_is_taken,
        _a_body_that_is_too_large_is_answered_before_anything_else,
        _a_request_id_is_taken_over_if_it_is_one,
        _no_token_and_no_secret_comes_into_the_log,
    ):
        with subtests.test(part.__name__):
            part(server)


def _every_error_is_json_with_the_same_headers(server):
    cookie = {"Cookie": f"auth_token={session_cookie(make_cast().owner)}"}
    json_type = {"Content-Type": "application/json"}
    # The request, and the status and the sentence of its answer. None means any sentence.
    requests = [
        (("GET", "/nothing", {}, None), 404, "Not found"),
        (("GET", "/auth/me/", {}, None), 404, "Not found"),
        (("GET", "/auth/me", {}, None), 401, "Authentication is required."),
        (("GET", "/auth/me", {"Authorization": "Bearer x"}, None), 401, None),
        (("PUT", "/auth/me", cookie, None), 405, 'Method "PUT" not allowed.'),
        (("OPTIONS", "/auth/me", cookie, None), 405, 'Method "OPTIONS" not allowed.'),
        (("TRACE", "/auth/me", cookie, None), 405, 'Method "TRACE" not allowed.'),
        (("GET", "/auth/me", {**cookie, "Accept": "text/html"}, None), 406, None),
        (("POST", "/workspaces", {**cookie, **json_type}, b"{"), 400, None),
        (("POST", "/workspaces", {**cookie, **json_type}, b"{}"), 400, "Validation failed"),
        (("POST", "/workspaces", {**cookie, **json_type}, b"\xff"), 400, None),
        (
            ("POST", "/workspaces", {**cookie, **json_type}, b" " * (1024 * 1024 + 1)),
            413,
            "The body must not be over 1 MiB.",
        ),
        (("POST", "/workspaces", {**cookie, "Content-Type": "text/plain"}, b"x"), 415, None),
        (
            ("POST", "/workspaces", {**cookie, **json_type, "Content-Encoding": "gzip"}, b"x"),
            415,
            "The body must not be compressed.",
        ),
        (
            ("GET", "/auth/me?a=1", {**cookie, "Content-Type": "text/x; charset=hex"}, None),
            415,
            "The only charset is UTF-8.",
        ),
        (("GET", "/auth/me", {**cookie, "Content-Type": "text/x; a*=no''b"}, None), 415, None),
        (("POST", "/workspaces", {**cookie, "Origin": "https://evil.example"}, None), 403, None),
        (("GET", "/auth/me", {"Cookie": "auth_token=a; auth_token=b"}, None), 401, None),
        (("GET", "/users/lookup?email=nobody@example.com", cookie, None), 404, "Not found"),
    ]
    with httpx.Client() as client:
        for (method, path, headers, body), status, sentence in requests:
            response = client.request(method, server.api + path, headers=headers, content=body)
            shown = f"{method} {path} {headers}: {response.status_code} {response.text}"
            assert response.status_code == status, shown
            assert response.reason_phrase == HTTPStatus(status).phrase, shown
            assert response.headers["content-type"] == "application/json", shown
            error = response.json()["error"]
            assert error == (sentence or error), shown
            assert HEADERS.items() <= dict(response.headers).items(), shown
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", response.headers["x-request-id"]), shown
            assert ("www-authenticate" in response.headers) == (status == 401), shown
            assert ("allow" in response.headers) or status != 405, shown


def _a_form_is_read_in_no_codec_that_its_sender_names(server):
    """Python decodes punycode in a time that grows with the square of the length: minutes for a megabyte."""
    part = b'--x\r\ncontent-disposition: form-data; name="token"\r\n\r\n%s-a\r\n--x--' % (
        b"a" * 60_000
    )
    for page in ("/console/account/verify", "/console/pair", "/admin/login/"):
        for kind in (
            "multipart/form-data; boundary=x; charset=punycode",
            "multipart/form-data; boundary=x",
        ):
            answer = httpx.post(server.url + page, headers={"Content-Type": kind}, content=part)
            assert answer.status_code == 415, (page, kind)


def _the_largest_body_is_taken(server):
    cookie = {"Cookie": f"auth_token={session_cookie(make_cast().owner)}"}
    body = b'{"name": "x"}'.ljust(1024 * 1024)
    response = httpx.post(
        f"{server.api}/workspaces",
        headers={**cookie, "Content-Type": "application/json"},
        content=body,
    )
    assert response.status_code == 201


def _a_body_that_is_too_large_is_answered_before_anything_else(server):
    cast = make_cast()
    with httpx.Client() as client:
        for fault in FAULTS:
            call = broken(fault)
            cookie = {"Cookie": f"{AUTH_COOKIE}={call.cookie(cast)}"} if call.who else {}
            answer = client.request(
                call.method,
                server.url + call.path(cast),
                headers={**call.headers, **cookie},
                content=call.content(cast).ljust(settings.MAX_BODY_BYTES + 1),
            )
            assert answer.status_code == 413, fault[0]


def _a_request_id_is_taken_over_if_it_is_one(server):
    for sent, kept in [("my-id.1_2", True), ("x" * 129, False), ("a b", False), ("", False)]:
        response = httpx.get(f"{server.api}/auth/me", headers={"X-Request-Id": sent})
        assert (response.headers["x-request-id"] == sent) == kept
        assert response.headers["x-request-id"]


def _no_token_and_no_secret_comes_into_the_log(server):
    """The test uses each secret, validly and not, in headers, bodies and queries, and the log has a line per call."""
    cast = make_cast()
    planted = {
        "password": PASSWORD,
        "header": "planted-mcp-header-value",
        "secret": "planted-webhook-secret",
        "cookie": session_cookie(cast.owner),
        "pwk": cast.mint("pwk", role="admin"),
        "wrk": cast.mint("wrk"),
        "wkt": cast.worker.worker_token,
        "unknown": tokens.mint("pwk").value,
    }
    environment = f"{server.api}/environments/{cast.environment.id}"
    worker = f"{server.api}/workers/{cast.worker.worker_id}"
    with httpx.Client() as client:

        def send(method, url, token=None, **kwargs):
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return client.request(
                method, url, headers={**headers, **kwargs.pop("headers", {})}, **kwargs
            )

        for password in (PASSWORD, "planted-wrong-password"):
            body = {"email": cast.owner.email, "password": password}
            send("POST", f"{server.api}/auth/login", json=body)
        client.cookies.clear()
        trigger = {
            "name": "x",
            "prompt": "x",
            "mcpUrl": "https://mcp.example/?key=planted-in-the-query",
            "mcpHeaders": {"x-api-key": planted["header"]},
            "webhookSecret": planted["secret"],
            "webhookUrl": "https://hooks.example/?key=planted-in-the-query",
            "workerId": str(cast.worker.worker_id),
        }
        created = send("POST", f"{environment}/triggers", planted["pwk"], json=trigger)
        assert created.status_code == 201
        send("POST", f"{environment}/triggers", planted["pwk"], json={**trigger, "name": 5})
        run = send(
            "POST", f"{server.api}/triggers/{created.json()['id']}/run", planted["pwk"], json={}
        )
        handed_out = send("GET", f"{worker}/poll", planted["wkt"]).json()["runs"]
        assert handed_out[0]["mcpHeaders"] == {"x-api-key": planted["header"]}
        send("POST", f"{worker}/runs/{run.json()['id']}/claim", planted["wkt"], json={})
        send("GET", f"{worker}/poll?token={planted['wkt']}", planted["pwk"])
        machine = {"hostname": "h", "os": "linux", "version": "1", "token": planted["wrk"]}
        registered = send("POST", f"{server.api}/workers/register", json=machine)
        planted["new wkt"] = registered.json()["workerToken"]
        send("POST", f"{server.api}/workers/register", json=machine)
        send("GET", f"{environment}/triggers", planted["unknown"])
        send("GET", f"{environment}/triggers?key={planted['pwk']}", planted["pwk"])
        send("GET", f"{server.api}/{planted['pwk']}")
        send("GET", f"{server.api}/auth/me", headers={"Cookie": f"auth_token={planted['cookie']}"})
        send("GET", f"{server.api}/auth/me", headers={"X-Request-Id": planted["pwk"]})
    log = server.log.read_text()
    assert "workers/register" in log
    assert str(cast.worker.worker_id) in log
    for name, value in planted.items():
        assert value not in log, name
    assert "planted" not in log

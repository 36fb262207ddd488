"""Every request gets an id, headers, bounds and a log line, whichever lane answers it."""

import asyncio
import encodings
import json
import logging
import pkgutil
import re
from encodings.aliases import aliases

import pytest

from pipedai.api import tokens
from pipedai.ids import current_request_id
from pipedai.server import outer as outer_module
from pipedai.server.outer import Limits, Outer
from pipedai.server.request_scope import PROBES, Scope, parse_networks
from pipedai.server.tests.asgi_exchange import Exchange, http_scope

pytestmark = pytest.mark.anyio

KIB = 1024
SECURITY = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Answering:
    """An application that answers in the three messages in which a2wsgi passes on Django's."""

    scope: Scope
    body: bytes
    request_id: str

    def __init__(
        self, status=200, body=b'{"ok": true}', content_type="application/json", headers=()
    ):
        self.called = False
        self._status = status
        self._body = body
        self._headers = [(b"content-type", content_type.encode()), *headers]

    async def __call__(self, scope, receive, send):
        self.called = True
        self.scope = scope
        self.body = (await receive())["body"]
        self.request_id = current_request_id.get()
        await send(
            {"type": "http.response.start", "status": self._status, "headers": self._headers}
        )
        await send({"type": "http.response.body", "body": self._body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def outer(app, *, body_bytes=KIB, body_seconds=1.0, **more):
    return Outer(app, limits=Limits(body_bytes=body_bytes, body_seconds=body_seconds), **more)


async def test_an_answer_goes_out_in_one_piece_with_its_length():
    exchange = await Exchange(http_scope()).run(outer(Answering()))
    assert exchange.status == 200
    assert exchange.json == {"ok": True}
    assert exchange.headers["content-length"] == "12"
    assert len(exchange.sent) == 2


@pytest.mark.parametrize("status", [200, 404, 413])
async def test_every_answer_of_the_api_has_the_security_headers(status):
    body = [b"x" * 2 * KIB] if status == 413 else [b""]
    headers = [(b"cache-control", b"public"), (b"Content-Security-Policy", b"default-src *")]
    app = Answering(status, headers=headers)
    exchange = await Exchange(http_scope(), body).run(outer(app))
    assert exchange.status == status
    assert SECURITY.items() <= exchange.headers.items()
    assert "strict-transport-security" not in exchange.headers
    exchange = await Exchange(http_scope(), body).run(outer(app, production=True))
    assert exchange.headers["strict-transport-security"] == "max-age=31536000"


async def test_a_page_elsewhere_keeps_its_own_headers():
    headers = [(b"cache-control", b"public"), (b"content-security-policy", b"default-src 'self'")]
    app = Answering(content_type="text/html", headers=headers)
    for path in ("/admin/", "/api/docs", "/api/v1x"):
        exchange = await Exchange(http_scope(path=path)).run(outer(app))
        assert exchange.headers["content-type"] == "text/html"
        assert exchange.headers["cache-control"] == "public"
        assert exchange.headers["content-security-policy"] == "default-src 'self'"
        assert exchange.headers["x-content-type-options"] == "nosniff"


async def test_what_is_no_page_may_do_nothing_in_a_browser():
    for path in ("//", "/nothing", "/api/docsx", "/static/x.svg"):
        exchange = await Exchange(http_scope(path=path)).run(outer(Answering()))
        policy = exchange.headers["content-security-policy"]
        assert policy == SECURITY["content-security-policy"]


async def test_the_console_may_load_files_of_our_own_and_nothing_else_and_is_kept_nowhere():
    for path in ("/console/", "/console/sign-in", "/console"):
        exchange = await Exchange(http_scope(path=path)).run(outer(Answering()))
        policy = exchange.headers["content-security-policy"]
        assert policy == (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
            " base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        )
        assert exchange.headers["cache-control"] == "no-store"
        assert exchange.headers["referrer-policy"] == "same-origin"


async def test_the_documentation_may_run_scripts_of_our_own_and_none_inline():
    exchange = await Exchange(http_scope(path="/api/docs")).run(outer(Answering()))
    policy = exchange.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy


@pytest.mark.parametrize("sent", ["abc", "A-b_c.9", "x" * 128])
async def test_a_well_formed_request_id_is_kept(sent):
    app = Answering()
    headers = {"host": "localhost", "x-request-id": sent}
    exchange = await Exchange(http_scope(headers=headers)).run(outer(app))
    assert exchange.headers["x-request-id"] == app.request_id == sent
    assert current_request_id.get() == ""


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 129, "é", "a\tb", ["a", "b"]])
async def test_any_other_request_id_is_replaced(sent):
    several = sent if isinstance(sent, list) else [sent]
    pairs = [("x-request-id", value) for value in several if value is not None]
    exchange = await Exchange(http_scope(headers=[("host", "h"), *pairs])).run(outer(Answering()))
    assert re.fullmatch(r"[0-9a-f-]{36}", exchange.headers["x-request-id"])


@pytest.mark.parametrize("kind", ["pwk", "wrk", "wkt", "session", "cut off"])
async def test_a_token_is_no_request_id(kind):
    sent = {
        "session": "eyJhbGciOiJIUzI1NiJ9.eyJ0eXAiOiJzZXNzaW9uIn0.c2lnbmF0dXJl-of-it",
        "cut off": f"id-{tokens.mint('wkt').value[:20]}",
    }.get(kind) or tokens.mint(kind).value
    headers = {"host": "localhost", "x-request-id": sent}
    exchange = await Exchange(http_scope(headers=headers)).run(outer(Answering()))
    assert re.fullmatch(r"[0-9a-f-]{36}", exchange.headers["x-request-id"])


async def test_the_application_gets_the_whole_body_at_once():
    app = Answering()
    headers = {"host": "h", "transfer-encoding": "chunked"}
    await Exchange(http_scope("POST", headers=headers), [b"a", b"", b"bc"]).run(outer(app))
    assert app.body == b"abc"
    assert (b"content-length", b"3") in app.scope["headers"]
    assert b"transfer-encoding" not in dict(app.scope["headers"])


async def test_the_application_is_not_called_before_the_body_is_there():
    app = Answering()
    exchange = Exchange(http_scope("POST"), [b"a"], ends=False)
    running = asyncio.ensure_future(exchange.run(outer(app, body_seconds=60)))
    await asyncio.sleep(0.05)
    assert not app.called
    exchange.gone.set()
    await running
    assert exchange.sent == []


async def test_a_body_of_just_the_limit_is_taken():
    app = Answering()
    await Exchange(http_scope("POST"), [b"x" * 1000, b"x" * 24]).run(outer(app))
    assert len(app.body) == KIB


async def test_a_body_that_says_it_is_too_large_is_refused_unread():
    headers = {"host": "h", "content-length": str(KIB + 1)}
    exchange = await Exchange(http_scope("POST", headers=headers), [b"x"]).run(outer(Answering()))
    assert exchange.status == 413
    assert exchange.json == {"error": "The body must not be over 1 KiB.", "code": "body_too_large"}
    assert exchange.headers["connection"] == "close"


async def test_what_the_server_itself_refuses_is_a_page_of_the_console():
    headers = {"host": "h", "content-length": str(KIB + 1)}
    scope = http_scope("POST", "/console/sign-in", headers=headers)
    exchange = await Exchange(scope, [b"x"]).run(outer(Answering()))
    assert exchange.status == 413
    assert exchange.headers["content-type"] == "text/html; charset=utf-8"
    assert exchange.headers["content-length"] == str(len(exchange.body))
    assert b"The body must not be over 1 KiB." in exchange.body


@pytest.mark.parametrize("length", ["1", "0", "x", None, "9" * 5000])
async def test_a_body_that_is_larger_than_it_says_is_refused(length):
    headers = {"host": "h"} | ({"content-length": length} if length else {})
    exchange = Exchange(http_scope("POST", headers=headers), [b"x" * KIB, b"x"])
    assert (await exchange.run(outer(Answering()))).status == 413


async def test_the_rest_of_a_refused_body_is_read_so_that_the_client_gets_its_answer():
    exchange = Exchange(http_scope("POST"), [b"x" * KIB] * 50)
    await exchange.run(outer(Answering()))
    assert exchange.status == 413
    assert exchange.received == 50


async def test_a_body_that_does_not_arrive_in_time_is_a_408():
    exchange = Exchange(http_scope("POST"), [b"x"], ends=False)

    async def leave_once_answered():
        while not exchange.sent:
            await asyncio.sleep(0.01)
        exchange.gone.set()

    leaving = asyncio.ensure_future(leave_once_answered())
    await exchange.run(outer(Answering(), body_seconds=0.05))
    await leaving
    assert exchange.status == 408
    assert exchange.json == {
        "error": "The body did not arrive within 0.05 seconds.",
        "code": "request_timeout",
    }


async def test_a_transfer_coding_that_compresses_is_a_415():
    headers = {"host": "h", "transfer-encoding": "gzip, chunked"}
    exchange = await Exchange(http_scope("POST", headers=headers), [b"x"]).run(outer(Answering()))
    assert exchange.status == 415


CODECS = {name for _, name, _ in pkgutil.iter_modules(encodings.__path__)} | set(aliases)
UTF_8 = {"utf8", "utf-8", "UTF-8"}


def saying(**headers):
    return http_scope(
        "POST",
        query="a=1",
        headers={"host": "h"} | {k.replace("_", "-"): v for k, v in headers.items()},
    )


@pytest.mark.parametrize(
    "form",
    [
        "text/x; charset={}",
        'application/json;CharSet = "{}"',
        "text/x; charset=utf-8; charset={}",
        'text/x; boundary="a; charset=utf-8; b"; charset={}',
        "text/x, application/json; charset={}",
    ],
)
async def test_no_codec_but_utf_8_is_a_charset(form):
    refused = set()
    for name in CODECS | UTF_8:
        app = Answering()
        exchange = await Exchange(saying(content_type=form.format(name))).run(outer(app))
        assert app.called == (exchange.status == 200)
        if exchange.status == 415:
            assert exchange.json["code"] == "unsupported_media_type"
            refused.add(name)
    assert refused == CODECS - UTF_8


@pytest.mark.parametrize(
    "content_type",
    [
        "text/x; charset*=utf-8''punycode",
        "text/x; charset*0=pun; charset*1=ycode",
        "text/x; a*0*=hex''61; a*1=b",
        "text/x; a*=nothing''61",
        "text/x; a* =undefined''61",
        "text/x; charset='utf-8'",
        "text/x; charset=",
        "multipart/form-data; boundary=x",
        " Multipart/mixed; boundary=x",
    ],
)
async def test_what_a_content_type_could_hide_a_codec_in_is_a_415(content_type):
    app = Answering()
    exchange = await Exchange(saying(content_type=content_type)).run(outer(app))
    assert (exchange.status, app.called) == (415, False)


async def test_an_accept_names_no_codec():
    for accept, status in (
        ("application/json; a*=punycode''b", 406),
        ("a/b;q=0.8, */*;q=0.1", 200),
    ):
        exchange = await Exchange(saying(accept=accept)).run(outer(Answering()))
        assert exchange.status == status


@pytest.mark.parametrize("headers", [{}, {"host": ""}, {"host": " "}])
async def test_a_request_without_host_is_a_400(headers):
    exchange = await Exchange(http_scope(headers=headers)).run(outer(Answering()))
    assert exchange.status == 400
    assert exchange.json == {"error": "The Host header is missing.", "code": "malformed_request"}


@pytest.mark.parametrize("path", sorted(PROBES))
async def test_a_probe_may_lack_a_host_where_http_allows_it(path):
    async def status(headers, version, path=path):
        scope = http_scope(path=path, headers=headers, http_version=version)
        return (await Exchange(scope).run(outer(Answering()))).status

    assert await status({}, "1.0") == 200
    assert await status({"host": ""}, "1.1") == 200
    assert await status({}, "1.1") == 400
    assert await status({}, "1.0", "/api/v1/x") == 400


async def test_a_query_that_is_not_ascii_is_a_400():
    exchange = await Exchange(http_scope(query="q=é")).run(outer(Answering()))
    assert exchange.status == 400
    assert exchange.json == {
        "error": "The query string must be percent-encoded.",
        "code": "malformed_request",
    }


@pytest.mark.parametrize("target", ["*", "example.com:443", "ftp://h/api/v1/x", "http://", "x"])
async def test_a_target_that_is_no_path_is_a_400_in_json(target):
    exchange = await Exchange(http_scope(path=target)).run(outer(Answering()))
    assert exchange.status == 400
    assert exchange.json == {
        "error": "The request target must be a path.",
        "code": "malformed_request",
    }
    assert SECURITY.items() <= exchange.headers.items()


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://api.example.com/api/v1/x", "/api/v1/x", b"api.example.com"),
        ("HTTPS://h:81/api/v1/http://h", "/api/v1/http://h", b"h:81"),
        ("http://http/api/v1/x", "/api/v1/x", b"http"),
        ("http://h", "/", b"h"),
    ],
)
async def test_an_absolute_target_is_its_path_and_its_host(target, path, host):
    app = Answering()
    exchange = await Exchange(http_scope(path=target, headers={"host": "evil"})).run(outer(app))
    assert exchange.status == 200
    assert app.scope["path"] == path
    assert dict(app.scope["headers"])[b"host"] == host
    assert ("cache-control" in exchange.headers) is path.startswith("/api/v1")


async def test_headers_mean_the_same_to_wsgi():
    app = Answering()
    headers = [
        ("host", "h"),
        ("cookie", "a=1"),
        ("x_request_id", "smuggled"),
        ("content_length", "5"),
        ("cookie", "b=2"),
        ("accept", "a"),
        ("accept", "b"),
    ]
    await Exchange(http_scope(headers=headers)).run(outer(app))
    assert sorted(app.scope["headers"]) == [
        (b"accept", b"a"),
        (b"accept", b"b"),
        (b"cookie", b"a=1; b=2"),
        (b"host", b"h"),
    ]


async def test_the_client_and_scheme_come_from_trusted_proxies_alone():
    app = Answering()
    headers = {
        "host": "h",
        "x-forwarded-for": "9.9.9.9, 198.51.100.1",
        "x-forwarded-proto": "https",
    }
    await Exchange(http_scope(headers=headers)).run(outer(app))
    assert app.scope["client"][0] == app.scope["pipedai.client"] == "203.0.113.9"
    assert app.scope["scheme"] == "http"
    trusted = parse_networks(["203.0.113.0/24"])
    await Exchange(http_scope(headers=headers)).run(outer(app, trusted_proxies=trusted))
    assert app.scope["client"][0] == app.scope["pipedai.client"] == "198.51.100.1"
    assert app.scope["scheme"] == "https"
    headers["x-forwarded-proto"] = "gopher"
    await Exchange(http_scope(headers=headers)).run(outer(app, trusted_proxies=trusted))
    assert app.scope["scheme"] == "http"


async def test_a_crash_answers_its_request_id_and_nothing_else(logged):
    async def crashing(scope, receive, send):
        raise RuntimeError("private")

    exchange = await Exchange(http_scope()).run(outer(crashing))
    assert exchange.status == 500
    assert exchange.json == {
        "error": "Internal server error",
        "code": "internal_error",
        "requestId": exchange.headers["x-request-id"],
    }
    (crash,) = logged.events("pipedai.server.outer")
    assert crash["event"] == "request crashed"
    assert crash["request_id"] == exchange.headers["x-request-id"]


async def test_a_crash_after_half_an_answer_was_held_back_is_a_500():
    async def crashing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    exchange = await Exchange(http_scope()).run(outer(crashing))
    assert exchange.status == 500
    assert exchange.json["error"] == "Internal server error"


async def test_a_crash_in_mid_stream_leaves_the_answer_incomplete(logged):
    async def crashing(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"b", "more_body": True})
        raise RuntimeError

    exchange = await Exchange(http_scope()).run(outer(crashing))
    assert exchange.body == b"ab"
    assert exchange.sent[-1]["more_body"]
    assert logged.events("pipedai.server.outer")


async def test_an_application_that_says_nothing_has_crashed():
    async def silent(scope, receive, send):
        pass

    assert (await Exchange(http_scope()).run(outer(silent))).status == 500


async def test_an_error_page_below_the_api_becomes_json():
    app = Answering(404, b"<h1>Not found</h1>", "text/html", [(b"x-other", b"kept")])
    exchange = await Exchange(http_scope()).run(outer(app))
    assert exchange.status == 404
    assert exchange.json == {"error": "Not found", "code": "not_found"}
    assert exchange.headers["x-other"] == "kept"
    assert exchange.headers["content-length"] == str(len(exchange.body))
    exchange = await Exchange(http_scope(path="/admin/x")).run(outer(app))
    assert exchange.body == b"<h1>Not found</h1>"


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_that_has_no_body_is_sent_without(method, status):
    exchange = await Exchange(http_scope(method)).run(outer(Answering(status)))
    assert exchange.status == status
    assert exchange.body == b""
    if method == "HEAD":
        assert exchange.headers["content-length"] == "12"
    else:
        assert not {"content-length", "content-type"} & set(exchange.headers)


async def test_an_empty_answer_has_no_type_that_is_not_json():
    exchange = await Exchange(http_scope("OPTIONS")).run(outer(Answering(200, b"", "text/html")))
    assert "content-type" not in exchange.headers


async def test_a_long_answer_is_passed_on_as_it_comes():
    async def streaming(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(5):
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    exchange = await Exchange(http_scope()).run(outer(streaming))
    assert exchange.body == b"ab" * 5
    assert "content-length" not in exchange.headers
    assert not exchange.sent[-1]["more_body"]


async def test_each_request_is_one_log_line_without_its_query(logged):
    async def app(scope, receive, send):
        scope["pipedai.log"] |= {"route": "api/v1/<x>", "principal": "user", "principal_id": "7"}
        await Answering()(scope, receive, send)

    scope = http_scope("POST", query="q=private", headers={"host": "h", "x-request-id": "r-1"})
    await Exchange(scope, [b"private"]).run(outer(app))
    (line,) = logged.events("pipedai.access")
    assert line.pop("duration_ms") >= 0
    assert line.pop("time")
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "pipedai.access",
        "request_id": "r-1",
        "method": "POST",
        "path": "/api/v1/x",
        "route": "api/v1/<x>",
        "principal": "user",
        "principal_id": "7",
        "status": 200,
        "bytes": 12,
        "client": "203.0.113.9",
    }
    assert "private" not in json.dumps(line)


async def test_a_refused_and_a_crashed_request_are_logged_too(logged):
    await Exchange(http_scope(headers={})).run(outer(Answering()))
    await Exchange(http_scope(path="/" + "x" * 5000)).run(outer(Answering(503)))
    lines = logged.events("pipedai.access")
    assert [(line["status"], line["level"]) for line in lines] == [(400, "info"), (503, "error")]
    assert type(lines[0]["status"]) is int
    assert lines[0]["refused"] == "The Host header is missing."
    assert len(lines[1]["path"]) < 400


@pytest.mark.parametrize(
    ("said", "status", "level"),
    [
        ({"route": "api/v1/health"}, 200, "debug"),
        ({"route": "api/v1/health/live"}, 200, "debug"),
        ({"route": "metrics"}, 200, "debug"),
        ({"route": "metrics"}, 401, "info"),
        ({"route": "api/v1/health"}, 503, "error"),
        ({"route": "api/v1/<x>", "runs": 0}, 200, "debug"),
        ({"route": "api/v1/<x>", "runs": 1}, 200, "info"),
        ({"route": "api/v1/<x>", "events": 20}, 200, "debug"),
        ({"route": "api/v1/<x>"}, 200, "info"),
        ({"route": "api/v1/<x>"}, 401, "info"),
    ],
)
async def test_probes_and_empty_polls_are_for_whoever_looks_closely(
    logged, monkeypatch, said, status, level
):
    async def app(scope, receive, send):
        scope["pipedai.log"] |= said
        await Answering(status)(scope, receive, send)

    observed = []
    monkeypatch.setattr(outer_module, "observers", [lambda *seen: observed.append(seen[:3])])
    access = logging.getLogger("pipedai.access")
    before = access.level
    try:
        for least in (logging.INFO, logging.DEBUG):
            access.setLevel(least)
            await Exchange(http_scope()).run(outer(app))
    finally:
        access.setLevel(before)
    lines = [line["level"] for line in logged.events("pipedai.access")]
    assert lines == [level] * (1 if level == "debug" else 2)
    assert observed == [("GET", said["route"], status)] * 2


async def test_a_client_that_goes_away_is_no_error(logged):
    exchange = Exchange(http_scope("POST"), [b"x"], ends=False)
    exchange.gone.set()
    await exchange.run(outer(Answering()))
    assert exchange.sent == []
    (line,) = logged.events("pipedai.access")
    assert (line["status"], line["level"]) == (499, "info")
    assert len(logged.records) == 1

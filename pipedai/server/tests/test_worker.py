"""Runs gunicorn with our worker as a process, and tests its own error answers, its deadlines and how it stops.

These tests fail when a release of gunicorn changes the private parts that `pipedai.server.worker` and
`pipedai.server.worker` override.
"""

import asyncio
import json
import os
import re
import resource
import signal
import socket
import time
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipedai.server.tests.web_process import (
    SMALL_APP,
    gunicorn,
    parse,
    read_all,
    serving,
)
from pipedai.server.worker import Body, Protocol, Signal
from testing.processes.web_process import free_port

HOST = b"Host: localhost\r\n"
CLOSE = HOST + b"Connection: close\r\n"
POLL = b"GET /api/v1/workers/0192b7a0-0000-7000-8000-%012x/poll?wait=30 HTTP/1.1\r\n" + HOST
# The size of the answer of /api/v1/large, in bytes.
LARGE = 200 * 65_538
CHUNKED = b"POST /api/v1/x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def web(tmp_path_factory, home):
    """Starts a web server as a shell does, which allows few open files by default."""
    folder = tmp_path_factory.mktemp("web")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
    try:
        with serving(folder, SMALL_APP, "--keep-alive", "2", HOME=str(home)) as web:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            yield web
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def hasty(tmp_path_factory):
    """Starts a web server with short deadlines, and memory for several large answers."""
    deadlines = {"HEADER_SECONDS": "2", "BODY_SECONDS": "1", "PACE_SECONDS": "1.5"}
    folder = tmp_path_factory.mktemp("hasty")
    with serving(folder, SMALL_APP, MEMORY_BUDGET_MIB="512", **deadlines) as web:
        yield web


def test_gunicorn_is_of_the_line_whose_private_parts_we_override():
    assert version("gunicorn").startswith("27.0.")


def test_no_connection_has_a_dict_of_its_own():
    worker: Any = SimpleNamespace(cfg=None, log=None, asgi=None)
    assert vars(Protocol(worker)) == {}


@pytest.mark.anyio
async def test_a_signal_wakes_its_waiter_once_it_is_set():
    ready = Signal()
    waiting = asyncio.ensure_future(ready.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    ready.set()
    ready.set()
    await waiting
    await ready.wait()
    assert ready.is_set()
    ready.clear()
    assert not ready.is_set()


@pytest.mark.anyio
async def test_a_wait_for_the_client_to_leave_may_be_given_up_and_begun_again():
    connection = SimpleNamespace(_closed=False)
    body = Body(SimpleNamespace(content_length=0, chunked=False), connection)
    assert (await body.receive())["type"] == "http.request"
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(body.receive(), 0.01)
    waiting = asyncio.ensure_future(body.receive())
    await asyncio.sleep(0)
    body.signal_disconnect()
    assert await waiting == {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /api/v1/x\r\n\r\n", 400),
        (b"GET /api/v1/x HTTP/9.9\r\n\r\n", 400),
        (b"get /api/v1/x HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/v1/\xff HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/v1/x?q=\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"GET /api/v1/x HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        (b"GET /api/v1/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET /api/v1/x HTTP/1.1\r\n" + HOST + b"A: \x00\r\n\r\n", 400),
        (b"GET /api/v1/x HTTP/1.1\n" + HOST + b"\n", 400),
        (b"POST /api/v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n", 400),
        (CHUNKED + b"zz\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /api/v1/" + b"x" * 200_000 + b" HTTP/1.1\r\n", 414),
        (b"GET /api/v1/x HTTP/1.1\r\nA: " + b"a" * 200_000 + b"\r\n\r\n", 431),
        (b"GET /api/v1/x HTTP/1.1\r\n" + b"A: a\r\n" * 1000 + b"\r\n", 431),
        (CHUNKED.replace(b"chunked", b"odd") + b"0\r\n\r\n", 501),
        # Our application gives this answer, on the same connection.
        (b"GET /api/v1/x HTTP/1.1\r\n\r\n", 400),
        (b"GET /api/v1/x HTTP/1.0\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (CHUNKED + b"%x\r\n" % 2_000_000 + b"x" * 2_000_000 + b"\r\n0\r\n\r\n", 413),
    ],
)
def test_a_bad_request_gets_a_json_answer_with_every_header(web, sent, status):
    got, headers, body = parse(web.exchange(sent))
    assert got == status
    assert set(json.loads(body)) == {"error", "code"}
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert headers["server"] == "pipedai"
    assert "date" in headers
    line = web.wait_for_line(event="request", request_id=headers["x-request-id"])
    assert line["status"] == status
    assert line["client"] == "127.0.0.1"


def test_a_body_that_never_comes_gets_such_an_answer_too(hasty):
    sent = b"POST /api/v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n\r\nabc"
    test_a_bad_request_gets_a_json_answer_with_every_header(hasty, sent, 408)


def test_what_was_sent_is_not_repeated_in_the_answer(web):
    answer = web.exchange(b"GET /api/v1/x HTTP/1.1\r\nsecret-name (: secret-value\r\n\r\n")
    assert parse(answer)[0] == 400
    assert b"secret" not in answer


def test_the_request_id_of_a_request_that_goes_wrong_later_is_kept(web):
    sent = b"GET /api/v1/x HTTP/1.1\r\nX-Request-Id: abc\r\nA: " + b"a" * 10_000 + b"\r\n\r\n"
    assert parse(web.exchange(sent))[1]["x-request-id"] == "abc"


def test_a_large_upload_gets_its_413_though_nobody_reads_it(web):
    size = 8_000_000
    head = b"POST /api/v1/x HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % size
    assert parse(web.exchange(head + b"x" * size))[0] == 413


def test_a_body_that_turns_out_malformed_after_the_answer_gets_no_second_one(web):
    with web.connect(CHUNKED + b"%x\r\n" % 1_100_000 + b"x" * 1_100_000) as connection:
        answer = connection.recv(65_536)
        connection.sendall(b"\r\nzz\r\n")
        answer += read_all(connection)
    assert answer.count(b"HTTP/1.1") == 1
    assert parse(answer)[0] == 413


def test_requests_that_come_together_are_answered_in_order(web):
    sent = b"".join(b"GET /api/v1/%d HTTP/1.1\r\n" % n + HOST + b"\r\n" for n in range(5))
    answer = web.exchange(sent + b"BAD\r\n\r\n")
    assert re.findall(rb'"path": "/api/v1/(\d)"', answer) == [b"0", b"1", b"2", b"3", b"4"]
    assert answer.count(b"HTTP/1.1 200") == 5
    assert answer.count(b"HTTP/1.1 400") == 1


def test_a_websocket_upgrade_is_a_request_like_any_other(web):
    sent = b"GET /api/v1/x HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    sent += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert parse(web.exchange(sent))[0] == 200


def test_only_we_say_who_the_client_is_and_how_it_called(web):
    sent = b"GET /api/v1/x HTTP/1.1\r\n" + CLOSE
    sent += b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX_Request_Id: a\r\n\r\n"
    seen = json.loads(parse(web.exchange(sent))[2])
    assert (seen["address"], seen["scheme"]) == ("127.0.0.1", "http")
    assert "HTTP_X_REQUEST_ID" not in seen["headers"]


def test_a_head_request_gets_no_body_and_no_complaint(web):
    status, headers, body = parse(web.exchange(b"HEAD /api/v1/head HTTP/1.1\r\n" + CLOSE + b"\r\n"))
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0
    assert "no-body response" not in web.output()


def test_a_crash_is_logged_with_its_traceback_and_answered_without(web):
    answer = web.exchange(b"GET /api/v1/crash HTTP/1.1\r\n" + CLOSE + b"\r\n")
    status, headers, body = parse(answer)
    assert status == 500
    said = {
        "error": "Internal server error",
        "code": "internal_error",
        "requestId": headers["x-request-id"],
    }
    assert json.loads(body) == said
    line = web.wait_for_line(event="request crashed", request_id=headers["x-request-id"])
    assert "a crash that nobody may read about" in line["exception"]


def test_a_connection_that_never_sends_its_headers_is_closed(hasty):
    with hasty.connect() as silent:
        status, headers, _ = parse(hasty.exchange(b"GET /api/v1/x HTTP/1.1\r\nHost: loc"))
        assert read_all(silent) == b""
    assert status == 408
    assert headers["connection"] == "close"


def test_a_kept_connection_is_closed_when_idle_but_not_in_mid_request(web):
    with web.connect(b"GET /api/v1/a HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert connection.recv(65_536) == b""
    for _ in range(20):
        began = time.monotonic()
        with web.connect(b"GET /api/v1/a HTTP/1.1\r\n" + HOST + b"\r\n") as connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
            if time.monotonic() - began > 1:
                continue  # The machine stood still: the connection may be idle too long already.
            connection.sendall(b"GET /api/v1/b HTTP/1.1\r\nHost: loc")
            if time.monotonic() - began > 1.5:
                continue
            time.sleep(2.4)  # This is longer than the server keeps an idle connection.
            connection.sendall(b"alhost\r\nConnection: close\r\n\r\n")
            assert b"/api/v1/b" in read_all(connection)
            return
    pytest.fail("the machine never had a second to spare")


def test_a_client_that_leaves_its_poll_or_a_long_answer_harms_nobody(web):
    for _ in range(4):
        web.connect(POLL % 99 + b"X-Request-Id: left\r\n\r\n").close()
        web.connect(b"GET /api/v1/large HTTP/1.1\r\n" + HOST + b"\r\n").close()
    assert web.wait_for_line(event="request", request_id="left")["status"] == 499
    for _ in range(4):
        assert parse(web.exchange(b"GET /api/v1/x HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 200
    errors = [line for line in web.lines() if line["level"] == "error"]
    assert {line["event"] for line in errors} <= {"request crashed", "request"}


def open_one_of_each(web):
    """Opens a connection in each state, and returns when the server has seen them all."""
    connections = {
        "idle": web.connect(),
        "kept": web.connect(b"GET /api/v1/x HTTP/1.1\r\n" + HOST + b"\r\n"),
        "partial": web.connect(b"GET /api/v1/x HT"),
        "slow": web.connect(b"GET /api/v1/slow HTTP/1.1\r\n" + HOST + b"\r\n"),
    }
    connections |= {f"poll {n}": web.connect(POLL % n + b"\r\n") for n in range(20)}
    assert connections["kept"].recv(65_536).startswith(b"HTTP/1.1 200")
    web.wait_until_taken(len(connections))
    return connections


def read_slowly(connection):
    """Reads a large answer slowly. Returns the number of bytes that came and the longest pause between two pieces."""
    taken, longest_pause, last = 0, 0.0, time.monotonic()
    while taken < LARGE and (piece := connection.recv(1 << 18)):
        taken += len(piece)
        time.sleep(0.06)
        now = time.monotonic()
        longest_pause, last = max(longest_pause, now - last), now
    return taken, longest_pause


@pytest.mark.parametrize("then", [HOST, CLOSE], ids=["kept", "to be closed"])
def test_a_client_that_does_not_read_its_answer_is_left_and_a_slow_one_is_not(hasty, then):
    asked = b"GET /api/v1/large HTTP/1.1\r\n" + then + b"\r\n"
    with hasty.connect(asked) as idle:
        for _ in range(10):
            with hasty.connect(asked) as slow:
                taken, longest_pause = read_slowly(slow)
            # If the whole machine stood still for a while, this client's pause proves nothing.
            if taken >= LARGE or longest_pause < 0.7:
                break
        assert taken >= LARGE
        hasty.wait_until_left()
        assert len(read_all(idle)) < LARGE


def test_sigterm_answers_what_runs_and_what_waits_and_keeps_nothing_open(tmp_path):
    with serving(tmp_path) as web:
        connections = open_one_of_each(web)
        web.process.send_signal(signal.SIGTERM)
        said = {name: read_all(connection) for name, connection in connections.items()}
        # This is far less than graceful_timeout, which the stop would take if the server waited for these connections.
        assert web.process.wait(timeout=20) == 0
        assert said.pop("idle") == said.pop("kept") == said.pop("partial") == b""
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in said.values()), said
        assert not [line for line in web.lines() if line["level"] in {"warning", "error"}][1:]
        for connection in connections.values():
            connection.close()


def test_a_request_on_its_way_on_a_new_connection_is_answered_while_stopping(tmp_path):
    """A proxy has connected and is about to send. If the server cut it off, the proxy's client would get a 502."""
    with serving(tmp_path, STOP_HEADER_SECONDS="60") as web:
        with web.connect() as connection:
            web.wait_until_taken(1)
            web.process.send_signal(signal.SIGTERM)
            web.wait_until_refusing()
            connection.sendall(b"GET /api/v1/x HTTP/1.1\r\n" + HOST + b"\r\n")
            assert read_all(connection).startswith(b"HTTP/1.1 200")
        assert web.process.wait(timeout=20) == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_its_processes_at_once_stops_them_too(tmp_path, sign):
    with serving(tmp_path) as web:
        connections = open_one_of_each(web)
        os.killpg(web.process.pid, sign)  # as a terminal does, and process managers
        assert web.process.wait(timeout=20) == 0
        assert "Traceback" not in web.output()
        for connection in connections.values():
            connection.close()


def test_a_worker_whose_master_was_killed_ends_itself_with_its_polls(tmp_path):
    with serving(tmp_path) as web:
        worker = int(re.findall(r"Booting worker with pid: (\d+)", web.output())[0])
        with web.connect(POLL % 1 + b"\r\n") as poll:
            web.wait_until_taken(1)
            web.process.kill()
            assert read_all(poll).startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 60
        while psutil.pid_exists(worker):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_production_process_has_hsts_and_listens_for_everyone(tmp_path):
    with serving(tmp_path, SMALL_APP, PIPEDAI_ENV="production", **PRODUCTION) as web:
        answer = web.exchange(b"GET /api/v1/x HTTP/1.1\r\n" + CLOSE + b"\r\n")
        assert parse(answer)[1]["strict-transport-security"] == "max-age=31536000"
        answer = web.exchange(b"BAD\r\n\r\n")
        assert parse(answer)[1]["strict-transport-security"] == "max-age=31536000"
        assert "Listening at: http://0.0.0.0:" in web.output()
        deadline = time.monotonic() + 60
        while web.output().count("Booting worker") < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)


PRODUCTION = {
    "SECRET_KEY": "a-secret-key-for-tests-alone-0123456789-0123456789",
    "MASTER_KEYS": "test:dGVzdC1vbmx5LW1hc3Rlci1rZXktMzJieXRlcy1rZXk=",
    "ALLOWED_HOSTS": "localhost",
    "PUBLIC_URL": "https://localhost",
}


def test_a_taken_port_is_said_in_one_sentence(tmp_path):
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        output = tmp_path / "log"
        assert gunicorn(SMALL_APP, output=output, PORT=str(port)).wait(timeout=30) == 1
    said = [line for line in output.read_text().splitlines() if not line.startswith("{")]
    assert said == [f"Port {port} of 127.0.0.1 is already in use: set PORT to another."]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("WEB_THREADS", "many", "WEB_THREADS must be a whole number."),
        ("PORT", "99999", "PORT must be between 1 and 65535."),
        (
            "TRUSTED_PROXIES",
            "heroku",
            "TRUSTED_PROXIES must list IP addresses or networks; 'heroku' is neither.",
        ),
    ],
)
def test_a_bad_setting_is_said_in_one_sentence(tmp_path, name, value, sentence):
    output = tmp_path / "log"
    process = gunicorn(SMALL_APP, output=output, **{"PORT": str(free_port()), name: value})
    assert process.wait(timeout=30) == 1
    assert output.read_text().strip() == sentence


def test_it_takes_more_connections_than_a_shell_allows_by_default(web):
    # We stop the process while we connect, so that it has to accept all connections at once.
    os.killpg(web.process.pid, signal.SIGSTOP)
    try:
        connections = [web.connect() for _ in range(400)]
    finally:
        os.killpg(web.process.pid, signal.SIGCONT)
    assert parse(web.exchange(b"GET /api/v1/x HTTP/1.1\r\n" + CLOSE + b"\r\n"))[0] == 200
    for connection in connections:
        connection.close()


def test_nothing_is_put_into_the_home_directory(web, home):
    assert list(home.iterdir()) == []

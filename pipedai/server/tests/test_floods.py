"""In a flood of requests a real process keeps its memory bounded, and answers other clients."""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil
import pytest

from pipedai.server.tests.web_process import SMALL_APP, parse, read_all, serving
from testing.processes.worker_process import until

pytestmark = pytest.mark.long

MIB = 1024 * 1024
HOST = b"Host: localhost\r\n"
CLOSE = HOST + b"Connection: close\r\n"
CHUNKED = b"POST /api/v1/x HTTP/1.1\r\n" + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"
LIVE = b"GET /api/v1/health/live HTTP/1.1\r\n" + CLOSE + b"\r\n"
ECHO = b"POST /api/v1/x HTTP/1.1\r\n" + CLOSE + b"Content-Length: %d\r\n\r\n%s"
# The answer to this request has 4 MB.
LARGE = b"GET /api/v1/large?60 HTTP/1.1\r\n" + CLOSE + b"\r\n"
LARGE_BYTES = 60 * 65_538


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    # Tests name the client's address in a header, as a proxy does.
    with serving(folder, SMALL_APP, MEMORY_BUDGET_MIB="48", TRUSTED_PROXIES="127.0.0.1") as web:
        yield web


@pytest.fixture(scope="module")
def memory(web):
    """Returns a function that returns the resident bytes of the process that serves."""
    (child,) = psutil.Process(web.process.pid).children()
    return lambda: child.memory_info().rss


def as_of(address, sent):
    """Returns the request as if it came from this address."""
    return sent.replace(HOST, HOST + b"X-Forwarded-For: %s\r\n" % address.encode(), 1)


def alive_within(web):
    """Returns how many seconds the process took to answer /health/live."""
    began = time.monotonic()
    assert parse(web.exchange(LIVE))[0] == 200
    return time.monotonic() - began


@pytest.mark.parametrize("size", [1, 2, 7])
def test_bodies_in_tiny_chunks_are_taken_and_hold_up_nobody(web, memory, size):
    body = b"x" * (100_000 // size * size)
    frames = (b"%x\r\n%s\r\n" % (size, b"x" * size)) * (len(body) // size) + b"0\r\n\r\n"
    before = memory()
    most, slowest = 0, 0.0
    with ThreadPoolExecutor(8) as pool:
        floods = [pool.submit(web.exchange, CHUNKED + frames) for _ in range(8)]
        while not all(flood.done() for flood in floods):
            slowest = max(slowest, alive_within(web))
            most = max(most, memory())
            time.sleep(0.05)
    for flood in floods:
        status, _, answer = parse(flood.result())
        assert (status, json.loads(answer)["body"]) == (200, body.decode())
    # This is enough for eight bodies of 0.1 MB and their echoes. As lists of chunks they would take 40 MB and more.
    assert most - before < 20 * MIB
    assert slowest < 1.0


def test_chunks_and_what_follows_them_may_come_in_any_pieces(web):
    sent = CHUNKED.replace(CLOSE, HOST) + b"3;a=b\r\nabc\r\n4\r\ndefg\r\n0\r\nx: y\r\n\r\n"
    sent = sent * 3 + LIVE
    for step in (1, 3, 50, 5000):
        with web.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(sent), step):
                connection.sendall(sent[at : at + step])
            answer = read_all(connection)
        assert answer.count(b"HTTP/1.1 200") == 4
        assert answer.count(b'"body": "abcdefg"') == 3
        assert b'{"status":"ok",' in answer


def test_a_body_in_chunks_that_turns_out_malformed_late_is_a_400(web):
    answer = web.exchange(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"zz\r\n")
    assert parse(answer)[0] == 400
    assert answer.count(b"HTTP/1.1") == 1


def test_who_leaves_amid_a_flood_is_forgotten(web):
    for _ in range(5):
        web.connect(CHUNKED + b"1\r\nx\r\n" * 2000).close()
    web.wait_until_left()
    assert parse(web.exchange(LIVE))[0] == 200


def named(request_id, sent):
    """Returns the request with this request id."""
    return sent.replace(HOST, HOST + b"X-Request-Id: %s\r\n" % request_id.encode(), 1)


def refused(web, ids):
    """Returns those of these requests that were answered with a 503."""
    lines = {line.get("request_id"): line.get("status") for line in web.lines()}
    return [request_id for request_id in ids if lines.get(request_id) == 503]


def test_one_address_can_t_use_up_the_room_for_bodies(web, memory):
    before = memory()
    large = ECHO % (1_000_000, b"y" * 1_000_000)
    ids = [f"hoard-{n}" for n in range(24)]
    with ExitStack() as at_the_end:
        # We never send the last byte of these bodies.
        hoarded = {
            name: at_the_end.enter_context(web.connect(as_of("192.0.2.1", named(name, large))[:-1]))
            for name in ids
        }
        # Large requests of one address may hold seven eighths of a quarter of 48 MiB, which is 10.5 MiB.
        until(lambda: len(refused(web, ids)) >= len(ids) - 11)
        assert len(refused(web, ids)) < len(ids) - 5
        for name in refused(web, ids):
            status, headers, body = parse(read_all(hoarded[name]))
            assert status == 503
            assert json.loads(body)["code"] == "overloaded"
            assert headers["retry-after"] == "1"
        assert memory() - before < 40 * MIB
        # Requests of other addresses, and small ones of this address, are still served.
        assert parse(web.exchange(as_of("192.0.2.2", large)))[0] == 200
        assert parse(web.exchange(as_of("192.0.2.1", ECHO % (1000, b"y" * 1000))))[0] == 200
        assert alive_within(web) < 1.0
    web.wait_until_left()
    assert parse(web.exchange(as_of("192.0.2.1", large)))[0] == 200


def deaf(web, sent):
    """Opens a connection, sends this, and takes as little of the answer as possible."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(("127.0.0.1", web.port))
    connection.sendall(sent)
    return connection


def test_unread_answers_are_bounded_and_the_room_comes_back(web, memory):
    before = memory()
    ids = [f"unread-{n}" for n in range(12)]
    with ExitStack() as at_the_end:
        for name in ids:
            at_the_end.enter_context(deaf(web, as_of("192.0.2.3", named(name, LARGE))))
        until(lambda: len(refused(web, ids)) == len(ids) - 2)
        assert memory() - before < 60 * MIB
        assert parse(web.exchange(as_of("192.0.2.4", LARGE)))[0] == 200
    web.wait_until_left()
    assert parse(web.exchange(as_of("192.0.2.3", LARGE)))[0] == 200


def test_who_trickles_is_left_and_who_reads_slowly_is_not(tmp_path):
    with (
        serving(tmp_path, SMALL_APP, PACE_SECONDS="3") as web,
        deaf(web, LARGE) as trickling,
        deaf(web, LARGE) as slow,
    ):
        taken, began = 0, time.monotonic()
        # The client reads about 100 KB a second, which the operating system passes on to it only every few seconds.
        while time.monotonic() - began < 12:
            trickling.recv(1)
            taken += len(slow.recv(5000))
            time.sleep(0.05)
        assert len(read_all(trickling)) < LARGE_BYTES
        assert taken + len(read_all(slow)) > LARGE_BYTES


@pytest.mark.parametrize(
    ("lengths", "status"),
    [
        ([b"+5"], 400),
        ([b"-1"], 400),
        ([b"1_0"], 400),
        ([b"0x5"], 400),
        ([b"5 5"], 400),
        ([b"5, 5"], 400),
        ([b"5.0"], 400),
        ([b""], 400),
        (["５".encode()], 400),
        ([b"\xb2"], 400),
        ([b"5", b"6"], 400),
        ([b"5", b"5"], 400),
        ([b"9" * 18], 413),
        ([b"9" * 20], 413),
        ([b"9" * 4300], 413),
        ([b"9" * 4301], 413),
        ([b"9" * 5000], 413),
        ([b"0" * 5000], 413),
        ([b"9" * 8000], 413),
        ([b"9" * 10_000], 431),
        ([b"  5  "], 200),
        ([b"005"], 200),
    ],
)
def test_every_content_length_is_answered(web, lengths, status):
    fields = b"".join(b"Content-Length: %s\r\n" % length for length in lengths)
    got, headers, body = parse(
        web.exchange(b"POST /api/v1/x HTTP/1.1\r\n" + CLOSE + fields + b"\r\nabcde")
    )
    assert got == status
    assert headers["connection"] == "close"
    assert "error" in json.loads(body) or status == 200
    assert "Traceback" not in web.output()

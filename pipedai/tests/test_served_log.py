"""Even at its lowest level, the log of a served API has no forged line, no secret and no control character."""

import json
import re
import socket

import httpx
import pytest

from testing.processes.web_process import serve
from testing.world.cast import make_cast, session_cookie

# A text with line breaks of every kind, escape sequences in 7 and in 8 bits, and a bidirectional override.
FORGED = "\n2026-01-01T00:00:00Z [info] forged\r\x1b[2K\u009b2K\u2028\u202e\x00"
QUOTED = "%0A2026-01-01T00:00:00Z%20forged%0D%1B[2K%C2%9B2K%E2%80%A8%E2%80%AE%00"
RAW = b"\x1b[2K\x9b2K\xe2\x80\xa8\xe2\x80\xae"
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
PLANTED = "planted-value-that-no-pattern-knows"


def exchange(url, request):
    with socket.create_connection((url.host, url.port), timeout=60) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def raw_requests():
    ended = b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n"
    yield b"GET /api/v1/" + RAW + b" HTTP/1.1\r\n" + ended
    yield b"GET /api/v1/x?" + RAW + b" HTTP/1.1\r\n" + ended
    yield b"G" + RAW + b"T /api/v1/x HTTP/1.1\r\n" + ended
    for name in (b"User-Agent", b"X-Request-Id", b"X-Forwarded-For", b"Origin", b"Cookie", b"Authorization",
                 b"Content-Type", b"Host", b"X" + RAW):  # fmt: skip
        yield b"POST /api/v1/auth/login HTTP/1.1\r\n" + name + b": " + RAW + b"\r\n" + ended
    yield RAW


@pytest.mark.parametrize("form", ["json", "text"])
def test_nobody_forges_a_line_and_nothing_secret_is_in_one(own_database, tmp_path, form):
    cast = make_cast()
    pwk, cookie = cast.mint("pwk", role="admin"), session_cookie(cast.owner)
    log = tmp_path / "log"
    talkative = {"LOG_FORMAT": form, "LOG_LEVEL": "DEBUG", "TRUSTED_PROXIES": "127.0.0.0/8"}
    with serve(own_database, log=log, **talkative) as server, httpx.Client() as client:
        url = httpx.URL(server.url)
        for request in raw_requests():
            exchange(url, request)
        client.get(f"{server.api}/{QUOTED}?{QUOTED}")
        client.get(f"{server.api}/auth/me", headers={"Cookie": f"auth_token={cookie}"})
        for name in (FORGED.replace("\x00", ""), FORGED):
            answer = client.post(
                f"{server.api}/environments/{cast.environment.id}/triggers?key={pwk}",
                headers={"Authorization": f"Bearer {pwk}"},
                json={
                    "name": name,
                    "prompt": name,
                    "mcpUrl": "https://mcp.example/",
                    "mcpHeaders": {"x-anything": PLANTED},
                },
            )
        assert answer.status_code == 400

    # We don't use splitlines, because it would split at the forbidden line breaks too.
    lines = log.read_text().removesuffix("\n").split("\n")
    assert len(lines) > 15
    for line in lines:
        assert not CONTROL.search(line), ascii(line)
        if form == "json":
            assert json.loads(line)["event"]
        else:
            assert re.match(r"20\d\d-\d\d-\d\dT|    ", line), line
            assert not line.startswith("2026-01-01")
    assert "x1b[2K" in log.read_text()  # The text was logged, with escapes.
    for secret in (PLANTED, pwk, cookie):
        assert secret not in log.read_text()

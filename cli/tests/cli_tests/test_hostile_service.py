"""A service that lies, breaks off or never ends: one sentence, exit 3, and no escape sequence for the terminal."""

import json
import os
import socket
import ssl
import subprocess
import sys
from http.client import parse_headers
from typing import Any

import pytest
from testing.processes.certificate import self_signed
from testing.processes.terminal import pipedai
from tests.gateway.servers import raw_server

from pipedai_cli import api, output

EVIL = "\x1b]0;owned\x07\x1b[2J\u202e\U000e0041evil\r\n"


def answers(body: bytes, *, status="200 OK", kind="application/json"):
    def talk(connection: socket.socket) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        while connection.recv(65536):
            connection.sendall(head.encode() + body)

    return talk


def endless(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def endless_head(connection: socket.socket) -> None:
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Header: " + b"x" * 1000 + b"\r\n")


def hangs_up(connection: socket.socket) -> None:
    connection.recv(65536)


def tls(folder):
    """A certificate that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(self_signed(folder))

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            secured.recv(65536)

    return talk


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (
            answers(b"<html>" + EVIL.encode() + b"</html>", kind="text/html"),
            "answered 200 with text/html",
        ),
        (answers(b"oops", status="500 Internal Server Error"), "answered 500"),
        (
            answers(json.dumps({"error": EVIL, "code": EVIL}).encode(), status="500 No"),
            "can't answer now",
        ),
        (answers(b"{}", status="302 Found"), "answered 302 without an error"),
        (answers(b'{"role": ' + b"[" * 100_000), "in place of JSON"),
        (answers(b"[]"), "can't be read"),
        (answers(b'{"role": 5}'), "can't be read"),
        (answers(b"\xff\xfe"), "in place of JSON"),
        (endless, "larger than 1 MiB"),
        (endless_head, "can't be reached"),
        (hangs_up, "can't be reached"),
        (lambda connection: connection.sendall(b"\x00\x01" + EVIL.encode()), "can't be reached"),
    ],
)
def test_is_one_sentence_and_exit_3(tmp_path, monkeypatch, talk, said):
    monkeypatch.setattr(api, "LARGEST_ANSWER", 1024**2)
    with raw_server(talk) as url:
        ended = pipedai("whoami", home=tmp_path, url=url.removesuffix("/mcp"), key="pwk_x")
    assert ended.code == 3
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert_harmless(ended)


def test_a_bad_certificate_is_named_with_what_to_do(tmp_path):
    with raw_server(tls(tmp_path)) as url:
        url = url.removesuffix("/mcp").replace("http://127.0.0.1", "https://localhost")
        ended = pipedai("whoami", home=tmp_path, url=url, key="pwk_x")
    assert (ended.code, "SSL_CERT_FILE" in ended.err) == (3, True)


def test_what_it_refuses_is_exit_4_with_the_code(tmp_path):
    wrong = {"fieldErrors": {"x": ["long " * 10_000]}}
    body = {"error": f"You can't. {EVIL}", "code": "forbidden", "details": wrong}
    with raw_server(answers(json.dumps(body).encode(), status="403 Forbidden")) as url:
        ended = pipedai("whoami", home=tmp_path, url=url.removesuffix("/mcp"), key="pwk_x")
    assert ended.code == 4
    assert "You can't" in ended.err
    assert len(ended.err) < 5000
    assert_harmless(ended)


def test_names_reach_the_terminal_as_text(tmp_path):
    row = {
        "name": EVIL,
        "health": "ok",
        "schedule": None,
        "nextRunAt": EVIL,
        "lastRun": None,
        "id": EVIL,
    }
    talk = answers(json.dumps({"items": [row], "environmentId": "e", "nextCursor": None}).encode())
    with raw_server(talk) as url:
        ended = pipedai("trigger", "list", home=tmp_path, url=url.removesuffix("/mcp"), key="pwk_x")
    assert ended.code == 0
    assert r"\x1b]0;owned\x07" in ended.out
    assert r"\U000e0041" in ended.out
    assert_harmless(ended)


def test_a_reader_that_has_enough_is_no_run_that_failed(tmp_path):
    with raw_server(answers(b'{"items": [], "environmentId": "e", "nextCursor": null}')) as url:
        command = [sys.executable, "-m", "pipedai_cli", "trigger", "list", "--json"]
        variables = {"PIPEDAI_URL": url.removesuffix("/mcp"), "PIPEDAI_KEY": "pwk_x"}
        paths = {"PYTHONPATH": ":".join(filter(None, sys.path)), "HOME": str(tmp_path)}
        reading, writing = os.pipe()
        os.close(reading)
        ended = subprocess.run(
            command, env=variables | paths, stdout=writing, stderr=subprocess.PIPE, check=False
        )
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_cost_beyond_all_numbers_is_shown_as_none():
    assert [output.dollars(each) for each in ("1e999999999", "NaN", "-1e20", "2")] == [
        *"---",
        "$2.00",
    ]


def test_a_key_is_in_no_error(tmp_path):
    """Values of variables often end with a line break, and a log of CI keeps what is written."""
    with raw_server(answers(b"[]")) as url:
        shell = {"home": tmp_path, "url": url.removesuffix("/mcp")}
        for key in ("pwk_planted\n", "pwk_planted\rx", "pwk_plänted"):
            assert "planted" not in pipedai("whoami", **shell, key=key).err


def test_a_variable_that_can_not_be_used_is_wrong_usage(tmp_path):
    for wrong in ({"ALL_PROXY": "foo://"}, {"SSL_CERT_FILE": "/nowhere"}):
        ended = pipedai("whoami", home=tmp_path, url="https://x.example", key="pwk_x", **wrong)
        assert (ended.code, "can't be used" in ended.err) == (2, True)


@pytest.mark.parametrize(
    "url", ["nonsense", "ftp://x", "https://u:p@x", "https://x/?q=1", "https://", "http://[::"]
)
def test_a_url_that_is_none_is_wrong_usage(tmp_path, url):
    ended = pipedai("whoami", home=tmp_path, url=url, key="pwk_x")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def assert_harmless(ended):
    assert not set("\x1b\x07\u202e\U000e0041\r") & set(ended.out + ended.err)


PLANNED: dict[str, Any] = {"environmentId": "e", "digest": "0", "changes": []}


def test_a_plan_waits_for_those_of_others_and_says_so_once(tmp_path):
    (tmp_path / "pipedai.yaml").write_text("managedBy: acme\npools: {a: {name: A}}\n")
    busy: dict[str, Any] = {
        "error": "Another plan of the workspace is under way.",
        "code": "throttled",
    }
    asked = []

    def talk(connection: socket.socket) -> None:
        requests = connection.makefile("rb")
        while line := requests.readline():
            requests.read(int(parse_headers(requests).get("Content-Length", 0)))
            status, answer = "200 OK", PLANNED
            if b"/plan" in line:
                asked.append(line)
                if len(asked) < 3:
                    status, answer = "429 Too Many Requests\r\nRetry-After: 0", busy
            body = json.dumps(answer).encode()
            head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)

    with raw_server(talk) as url:
        files, url = str(tmp_path / "pipedai.yaml"), url.removesuffix("/mcp")
        ended = pipedai("plan", files, home=tmp_path, url=url, key="pwk_x")
    assert (ended.code, len(asked)) == (0, 3), ended.err
    assert ended.err.count("Waiting: Another plan of the workspace is under way") == 1

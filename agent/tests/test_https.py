"""The worker talks only to an API whose certificate it trusts."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from testing.processes.certificate import self_signed

from pipedai_worker.api import Api, Unavailable


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"status": "ok"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path, "127.0.0.1")


@pytest.fixture
def url(certificate: Path) -> Iterator[str]:
    """The URL of an API that has this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with HTTPServer(("127.0.0.1", 0), _Healthy) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"HTTPS://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_certificate_is_trusted_only_if_it_is_named(url: str, certificate: Path) -> None:
    with closing(Api(url)) as api, pytest.raises(Unavailable, match=r"VERIFY_FAILED.*--ca-file"):
        api.health()
    with closing(Api(url, ca_file=certificate)) as api:
        api.health()

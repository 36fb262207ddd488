"""Pinned packages are compared with advisories, and an index that can't be reached fails nothing."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from django.conf import settings

from bin.advisories import main, pinned


class Index(BaseHTTPRequestHandler):
    """Knows one advisory, about any version of Django."""

    answers: bool = True

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        known = [{"vulns": [{"id": "OSV-1"}]} if self._is_known(each) else {} for each in asked]
        body = json.dumps({"results": known}).encode() if self.answers else b"<html>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @staticmethod
    def _is_known(query: dict[str, dict[str, str]]) -> bool:
        return query["package"] == {"name": "django", "ecosystem": "PyPI"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_an_advisory_about_a_pinned_version_fails(
    index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(settings.BASE_DIR)
    version = dict(pinned(settings.BASE_DIR))["django"]
    assert main(index) == 1
    assert capsys.readouterr().out == f"django {version}: https://osv.dev/OSV-1\n"


def test_an_index_that_is_away_or_lies_fails_nothing(
    index: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(settings.BASE_DIR)
    assert main("http://127.0.0.1:1/") == 0
    monkeypatch.setattr(Index, "answers", False)
    assert main(index) == 0
    assert capsys.readouterr().out.count("was not reached") == 2

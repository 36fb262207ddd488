"""Python's garbage collection is tuned (docs/decisions/fast-paths.md)."""

import gc
import subprocess
import sys
from io import BytesIO

import pytest
from gunicorn.workers import gasgi

import pipedai
from pipedai import wsgi
from pipedai.env import BASE_DIR
from pipedai.server.worker import Worker


def test_collections_are_rarer_than_pythons_own():
    assert pipedai.__name__
    assert gc.get_threshold()[0] == 10_000


def test_what_a_web_process_has_loaded_is_not_collected(monkeypatch):
    monkeypatch.setattr(gasgi.ASGIWorker, "load_wsgi", lambda self: None)
    try:
        Worker.load_wsgi(Worker.__new__(Worker))
        assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["workers/{worker}/poll", "workers/{worker}/nothing", "triggers/{trigger}"]
)
def test_a_request_leaves_no_garbage(cast, monkeypatch, path):
    monkeypatch.setattr(wsgi, "close_old_connections", lambda: None)
    path = path.format(worker=cast.worker.worker_id, trigger=cast.trigger_id)

    def call():
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": f"/api/v1/{path}",
            "QUERY_STRING": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "HTTP_HOST": "localhost",
            "HTTP_AUTHORIZATION": f"Bearer {cast.worker.worker_token}",
            "wsgi.input": BytesIO(),
            "wsgi.url_scheme": "http",
        }
        assert b"".join(wsgi.application(environ, lambda *_: None))

    call()  # The first call fills caches.
    gc.collect()
    gc.disable()
    try:
        call()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_process_that_ends_looks_for_no_garbage():
    program = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import pipedai"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "True\n"

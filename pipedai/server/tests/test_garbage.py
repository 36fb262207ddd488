"""Python's garbage collection is tuned (docs/decisions/fast-paths.md)."""

import gc
import subprocess
import sys

import pytest
from gunicorn.workers import gasgi

import pipedai
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


@pytest.mark.slow
def test_a_process_that_ends_looks_for_no_garbage():
    program = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0)); import pipedai"
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, capture_output=True, text=True, check=True
    )
    assert ended.stdout == "True\n"

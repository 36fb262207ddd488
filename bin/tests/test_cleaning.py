"""Removing a temporary data directory ends everything that uses it."""

import subprocess
import sys

from bin.suite import environment_of, new_data_dir
from bin.tests.scripts import ROOT
from pipedai.embedded.server import EmbeddedPostgres


def test_what_uses_the_directory_is_ended_first_then_its_server(monkeypatch):
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)
    data_dir = new_data_dir()
    environment = environment_of(data_dir)
    server = EmbeddedPostgres(data_dir)
    server.ensure_running()
    users = [
        subprocess.Popen(["sh", "-c", f"{trap} sleep 100 & wait; sleep 100"], env=environment)
        for trap in ("", "trap '' TERM;")
    ]
    bystander = subprocess.Popen(["sleep", "100"])

    subprocess.run([sys.executable, "-m", "bin.ending"], cwd=ROOT, env=environment, check=True)

    assert all(user.wait(timeout=60) < 0 for user in users)
    assert not data_dir.exists()
    assert not server.status().running
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()

"""The code from before the newest migration works on the present schema, as it must during a deploy."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipedai.env import BASE_DIR
from testing.processes.main_job import MainJob
from testing.processes.web_process import serve_checkout

pytestmark = pytest.mark.long

MIGRATIONS = ":(glob)*/migrations/0*.py"


def git(*arguments: str) -> str:
    """Returns git's output, or an empty text if git fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=BASE_DIR, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def commit_before_the_newest_migration() -> str:
    """Returns the last commit without the newest migration, or the present commit if that is not committed yet."""
    if git("status", "--porcelain", "--", MIGRATIONS):
        return git("rev-parse", "HEAD")
    # We count only migrations that still exist, because one that was removed again is in no schema.
    present = git("ls-files", "--", MIGRATIONS).splitlines()
    newest = git("log", "-1", "--format=%H", "--", *present)
    return newest and git("rev-parse", "--verify", "--quiet", f"{newest}^")


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """Makes a checkout of the commit before the newest migration."""
    if shutil.which("git") is None or not (commit := commit_before_the_newest_migration()):
        pytest.skip("There is no git history here that reaches beyond the newest migration.")
    checkout = tmp_path / "old"
    checkout.mkdir()
    archive = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=BASE_DIR, stdout=subprocess.PIPE, check=True
    )
    subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
    return checkout


@pytest.fixture
def old_packages(old_code: Path, tmp_path: Path) -> Path:
    """Makes a directory with the packages of the old code's lock, or an empty one if the present lock is the same."""
    packages = tmp_path / "packages"
    packages.mkdir()
    lock = old_code / "requirements.txt"
    if lock.read_bytes() != (BASE_DIR / lock.name).read_bytes():
        # A lock names every package, also those which another one needs.
        only = ["--no-deps", "--require-hashes", "--no-compile", "--target", str(packages)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-input", *only]
        subprocess.run([*pip, "-r", str(lock)], check=True)
    return packages


def test_the_main_job_works(
    own_database: str, old_code: Path, old_packages: Path, tmp_path: Path
) -> None:
    log = tmp_path / "web.log"
    with serve_checkout(old_code, own_database, log=log, PYTHONPATH=str(old_packages)) as server:
        job = MainJob.at(server.api, webhookUrl="https://hooks.example.com/done")
        job.execute()
        job.post(f"/runs/{job.queue()}/cancel", {})
        assert {"run.created", "run.claimed", "run.completed", "run.canceled"} <= set(job.actions())
        assert job.get(f"{job.environment}/runs")["items"][0]["status"] == "canceled"

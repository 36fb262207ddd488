"""Runs the README's tour block by block on a served API, as a newcomer would paste it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from pipedai.env import BASE_DIR

pytestmark = pytest.mark.long

# What the last lines of each section's output contain if all went well.
PROMISES = {
    "People: an account, a workspace, an environment": [r'"role": "owner"'],
    "Keys: one for your scripts, one for one worker": [r'"prefix": "pwk"', r'"prefix": "wrk"'],
    "A worker": [r'"hostname": "build-1"'],
    "A trigger, and a run of it": [
        r'"hasMcpHeaders": true',
        r"HTTP/1.1 200 OK",
        r"idempotent-replayed: true",
        r"SUMMARISE WHAT HAPPENED OVERNIGHT\.",
        r'"status": "succeeded"',
    ],
    "The worker's protocol, by hand": [
        r'"prompt": "Summarise what happened overnight\."',
        r'"Authorization": "Bearer a-secret-of-yours"',
        r"^claimed$",
        r"^running$",
        r'"cancelRequested": false',
    ],
    "Canceling": [
        r"^True$",
        r"^canceled$",
        r'"shortMessage": "Stopped as asked\."',
        r"HTTP/1.1 204 No Content",
    ],
}


def sections() -> dict[str, str]:
    """Returns the tour's shell commands by heading. Those before the first heading belong to ''."""
    readme = (BASE_DIR / "README.md").read_text()
    found = re.search(r"^## A tour with curl\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    assert found is not None
    heading, *rest = re.split(r"^### (.*)\n", found[1], flags=re.MULTILINE)
    parts = {"": heading} | dict(zip(rest[::2], rest[1::2], strict=True))
    return {
        name: "".join(re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
        for name, text in parts.items()
    }


def test_the_tour_has_the_sections_that_are_tested():
    assert list(sections()) == ["", *PROMISES]


def test_the_tour_works_command_by_command_and_once_more(server, tmp_path):
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    tour = sections()
    worker = "A worker"
    tour[worker] = replaced(tour[worker], ".venv/bin/python", sys.executable)
    once = "".join(f"echo '--- {number}'\n{tour[name]}" for number, name in enumerate(tour))
    # A newcomer's shell continues after a failure, but here the first failure ends it.
    process = subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", once * 2],
        cwd=BASE_DIR,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "BASH_ENV": "",
            "PORT": str(urlsplit(server.url).port),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said = process.communicate(timeout=380)[0]
    finally:
        kill_group(process.pid)
        process.wait()
    assert process.returncode == 0, said
    assert '"error":' not in said, said
    parts = re.split(r"^--- \d+\n", said, flags=re.MULTILINE)[1:]
    for name, part in zip([*tour, *tour], parts, strict=True):
        for promise in PROMISES.get(name, []):
            assert re.search(promise, part, re.MULTILINE), (promise, part)
    assert not list(tmp_path.glob("tmp.*"))  # the tour removes its temporary files


def test_a_wait_of_the_tour_ends_and_shows_the_end_of_the_workers_log(tmp_path):
    (found,) = re.findall(
        r"^within_a_minute\(\) \{\n.*?^\}\n", sections()[""], re.DOTALL | re.MULTILINE
    )
    (tmp_path / "worker.log").write_text("early\n" * 30 + "It can't register.\n")
    script = f"sleep() {{ slept=$((${{slept:-0}} + 1)); }}\n{found}\nwithin_a_minute false || echo $slept"
    said = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": os.environ["PATH"], "TOUR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert said[0].startswith("After a minute this still fails: false.")
    assert said[-2:] == ["It can't register.", "120"]
    assert len(said) == 22


def kill_group(pid: int) -> None:
    """Kills the shell and a worker that it may have left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def replaced(text: str, old: str, new: str) -> str:
    """Replaces `old`, which the text must contain."""
    assert old in text
    return text.replace(old, new)

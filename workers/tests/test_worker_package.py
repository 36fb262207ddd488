"""GET /downloads/… serves the worker's package, whose bytes are the same on every machine."""

import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path

import pytest
from django.test import Client

from bin.build_worker import build
from pipedai.version import VERSION
from testing.processes.programs import lacking
from testing.world.cases import cases
from workers import releases as packages
from workers.releases import DOWNLOADS, SOURCE, cli_package, worker_package

NAME = f"pipedai_worker-{VERSION}-py3-none-any.whl"
TWINE = "twine==6.*"


def test_everybody_can_download_it():
    answer = Client().get(DOWNLOADS + NAME)
    assert answer.status_code == 200
    assert sha256(answer.content).hexdigest() == worker_package().sha256
    assert answer["Content-Type"] == "application/octet-stream"
    assert answer["Cache-Control"] == "no-cache"
    head = Client().head(DOWNLOADS + NAME)
    assert (head.status_code, head.content) == (200, b"")


def test_the_command_line_is_served_too_without_its_tests():
    package = cli_package()
    assert package.name == f"pipedai-{VERSION}-py3-none-any.whl"
    assert Client().get(DOWNLOADS + package.name).content == package.content
    with zipfile.ZipFile(io.BytesIO(package.content)) as wheel:
        names = wheel.namelist()
    assert "pipedai_cli/commands/runs.py" in names
    assert not [name for name in names if "test" in name]


def test_whoever_has_it_already_gets_a_304():
    held = {"If-None-Match": f'"{worker_package().sha256}"'}
    assert Client(headers=held).get(DOWNLOADS + NAME).status_code == 304


@cases("name", ["pipedai_worker-0.9.0-py3-none-any.whl", "x", "..%2Fmanage.py"])
def test_there_is_nothing_else_to_download(name):
    for held in ({}, {"If-None-Match": "*"}):
        assert Client(headers=held).get(DOWNLOADS + name).status_code == 404
    assert Client().post(DOWNLOADS + NAME).status_code == 405


def test_its_bytes_depend_on_the_content_of_the_files_alone(monkeypatch, tmp_path):
    copied = tmp_path / "agent"
    shutil.copytree(SOURCE, copied, copy_function=shutil.copyfile)
    for number, path in enumerate(sorted(copied.rglob("*.py"))):
        path.chmod(0o640 if number % 2 else 0o755)
        os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    monkeypatch.setattr(packages, "SOURCE", copied)
    assert packages.worker_package.__wrapped__() == worker_package()


def test_it_has_the_worker_its_licence_and_its_metadata_and_no_test():
    with zipfile.ZipFile(io.BytesIO(worker_package().content)) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        metadata = message_from_bytes(wheel.read(f"pipedai_worker-{VERSION}.dist-info/METADATA"))
    assert {"pipedai_worker/cli.py", f"pipedai_worker-{VERSION}.dist-info/licenses/LICENSE"} <= set(
        names
    )
    assert not [name for name in names if {"tests", "__pycache__"} & set(name.split("/"))]
    assert (metadata["Name"], metadata["Version"]) == ("pipedai-worker", VERSION)
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.9"
    declared = tomllib.loads((SOURCE / "pyproject.toml").read_text())["project"]["dependencies"]
    assert metadata.get_all("Requires-Dist") == declared
    assert "# pipedai-worker" in metadata.get_payload()


@pytest.mark.long
@pytest.mark.timeout(800)
def test_what_is_published_is_what_is_served_and_passes_twine(tmp_path: Path):
    built = build(tmp_path)
    assert built[0].read_bytes() == worker_package().content
    assert built[2].read_bytes() == cli_package().content
    uv = str(Path(sys.executable).with_name("uv"))
    tool = [uv, "tool", "run", "--quiet", "--from", TWINE]
    got = subprocess.run([*tool, "python", "-c", ""], capture_output=True, text=True)
    if got.returncode:
        lacking(f"uv could not get twine: {got.stderr.strip().splitlines()[-1:]}")
    done = subprocess.run(
        [*tool, "twine", "check", "--strict", *map(str, built)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr

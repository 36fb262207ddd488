"""The version stands in pipedai/version.py, and everything else that tells it follows."""

import json
import re
from pathlib import Path

import pytest

from bin.source_check import sections_wrong
from pipedai.env import BASE_DIR
from pipedai.version import VERSION
from pipedai_cli import __version__ as cli_version
from pipedai_worker import __version__
from testing.processes.scheduler_process import scheduling
from testing.processes.web_process import serve
from testing.processes.worker_process import until
from testing.world.cast import browser


def test_the_worker_is_of_the_same_version():
    assert __version__ == VERSION
    assert cli_version == VERSION


def test_the_changelog_has_a_section_for_it():
    assert sections_wrong((BASE_DIR / "CHANGELOG.md").read_text(), VERSION) is None


def test_no_document_but_that_on_releasing_names_a_tag():
    """A tag is made after the documents of its release, so one that they name may not be there."""
    places = [*BASE_DIR.glob("*.md"), *BASE_DIR.glob("docs/**/*.md"), BASE_DIR / "compose.yaml"]
    for path in {*places, *BASE_DIR.glob("deploy/**/*.y*ml")} - {BASE_DIR / "docs/releasing.md"}:
        assert not re.search(r"\bv\d+\.\d+\.\d+|pipedai\S*:v?\d+\.\d", path.read_text()), path


def test_the_contract_tells_it():
    assert browser().get("/api/v1/openapi.json").json()["info"]["version"] == VERSION


def test_the_worker_has_the_licence_of_the_whole():
    licence = (BASE_DIR / "LICENSE").read_text()
    assert licence.startswith("MIT License")
    assert (BASE_DIR / "agent" / "LICENSE").read_text() == licence


@pytest.mark.parametrize("name", ["web", "scheduler"])
def test_the_log_of_a_process_begins_with_it(own_database: str, tmp_path: Path, name: str):
    log = tmp_path / "log"
    run = serve if name == "web" else scheduling
    with run(own_database, log=log, LOG_FORMAT="json"):
        first = until(lambda: re.match(r".*\n", log.read_text()))
    line = json.loads(first[0])
    assert (line["event"], line["process"], line["version"]) == ("process.started", name, VERSION)

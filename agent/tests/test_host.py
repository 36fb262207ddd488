"""docs/hosts.md and docs/conformance.md are right about the unit, its options, and the list of checks."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from testing.processes.programs import program

from pipedai_worker import cli
from pipedai_worker.cli import DEFAULT_DRAIN_SECONDS
from pipedai_worker.conformance import lab
from pipedai_worker.running.loop import LEAVE_SECONDS

from .warm_workers import AGENT

REPOSITORY = AGENT.parent
UNIT = REPOSITORY / "deploy" / "worker" / "pipedai-worker.service"


# The published host client gives a worker this long after SIGTERM.
SUPERVISORS_PATIENCE_SECONDS = 30.0


def setting(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)
    return str(value)


def test_the_unit_starts_the_worker_with_options_that_it_knows() -> None:
    program, *given = shlex.split(setting("ExecStart"))
    assert Path(program).name == "pipedai-worker"
    options = cli.make_parser().parse_args(given)
    assert options.config.name == "worker.json"


def test_the_unit_leaves_the_worker_its_time_and_its_programs() -> None:
    assert float(setting("TimeoutStopSec")) > SUPERVISORS_PATIENCE_SECONDS
    assert setting("KillMode") == "mixed"


def test_a_worker_whose_programs_are_deaf_and_whose_api_is_away_has_time_to_spare() -> None:
    assert DEFAULT_DRAIN_SECONDS + LEAVE_SECONDS <= SUPERVISORS_PATIENCE_SECONDS - 2


def test_the_unit_does_not_restart_what_a_person_has_to_mend() -> None:
    hopeless = {cli.BAD_CONFIG, cli.DEAD_TOKEN}
    assert {int(code) for code in setting("RestartPreventExitStatus").split()} == hopeless


@pytest.mark.long
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace(setting("ExecStart"), "/bin/true"))
    verdict = subprocess.run(
        [program("systemd-analyze"), "verify", unit], capture_output=True, text=True, check=False
    )
    assert (verdict.returncode, verdict.stderr) == (0, "")


def test_the_list_of_checks_is_complete() -> None:
    listed = re.findall(
        r"^\| `([\w-]+)` \| (.*) \|$",
        (REPOSITORY / "docs" / "conformance.md").read_text(),
        re.MULTILINE,
    )
    assert listed == [(check.name, check.sentence) for check in lab.checks().values()]

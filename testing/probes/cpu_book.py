"""Books the CPU time of each test, with all of its processes and PostgreSQL, and prints the time of each test file.

`bin/test --no-checks -n 0 -p testing.probes.cpu_book PATHS`, as root on Linux with cgroups of version 1.
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pipedai.embedded.server import EmbeddedPostgres

_GROUPS = Path("/sys/fs/cgroup/cpuacct")
_NANOSECONDS = 1e9
# The file that CPU_BOOK names gets a line of JSON for each test: its id, and its CPU time in seconds.
_KEPT = os.environ.get("CPU_BOOK")


class _Book:
    """A control group that counts this process, the embedded PostgreSQL, and all that they start from now on."""

    def __init__(self) -> None:
        self._parent = _own_group()
        self._group = self._parent / f"pytest-{os.getpid()}"
        self._group.mkdir()
        for pid in (os.getpid(), _postgres()):
            if pid is not None:
                (self._group / "tasks").write_text(str(pid))
        self.seconds: dict[str, float] = {}

    def used(self) -> float:
        """Returns the CPU time in seconds since the group was made."""
        return int((self._group / "cpuacct.usage").read_text()) / _NANOSECONDS

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        before = self.used()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = self.used() - before
            if _KEPT:
                with Path(_KEPT).open("a") as file:
                    file.write(
                        f"{json.dumps([item.nodeid, round(self.seconds[item.nodeid], 4)])}\n"
                    )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        files: dict[str, list[float]] = defaultdict(list)
        for nodeid, seconds in self.seconds.items():
            files[nodeid.partition("::")[0]].append(seconds)
        terminalreporter.section("CPU seconds of each file, and its tests")
        for name, each in sorted(files.items(), key=lambda found: -sum(found[1])):
            terminalreporter.line(f"{sum(each):8.2f} {len(each):5} {name}")
        terminalreporter.line(f"{self.used():8.2f} {len(self.seconds):5} all, with the start")

    def pytest_unconfigure(self) -> None:
        # What still runs, such as PostgreSQL, goes back to where this process came from.
        for pid in (self._group / "tasks").read_text().split():
            with suppress(ProcessLookupError):
                (self._parent / "tasks").write_text(pid)
        with suppress(OSError):  # One of its processes has not quite ended.
            self._group.rmdir()


def pytest_configure(config: pytest.Config) -> None:
    """Begins to book."""
    config.pluginmanager.register(_Book(), "cpu-book")


def _postgres() -> int | None:
    """Returns the main process of the server that bin/test has started before pytest, if it has."""
    data_dir = os.environ.get("PIPEDAI_DATA_DIR")
    return EmbeddedPostgres(Path(data_dir)).status().pid if data_dir else None


def _own_group() -> Path:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    (own,) = [line.split(":", 2)[2] for line in lines if "cpuacct" in line.split(":")[1].split(",")]
    return _GROUPS / own.removeprefix("/")

"""Runs the tests in several processes (`-n`), which are forks of the one that has collected them.

So the modules are imported, and the tests collected, once and not in each process. pytest loads this as a plugin
(pytest.ini). Each process begins with an equal share of consecutive tests, because tests of one module share what the
module starts. One that has run out of tests takes over the later half of the largest share that is left.
"""

import math
import multiprocessing
import os
import signal
import traceback
from collections import deque
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import pytest

from bin.ending import die_with_parent

# The name of a process, gw0 and so on, in its environment. pytest-django adds it to the name of the test database.
NAME = "PYTEST_PROCESS"
# After a Ctrl-C the processes get this many seconds to end what their tests have started.
_PATIENCE_SECONDS = 10


class _Hooks:
    """The hooks that this plugin adds."""

    def pytest_process_ended(self, output: dict[str, Any]) -> None:
        """Gets what the tests of a process have put into `config.workeroutput`."""


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declares the hooks."""
    pluginmanager.add_hookspecs(_Hooks)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `-n`. A short option in lower case is reserved for pytest, unless it is added like this."""
    parser.getgroup("processes")._addoption(
        "-n", dest="processes", type=int, default=0, help="run the tests in so many processes"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Runs all tests, unless they are to run in this process."""
    option = session.config.option
    if option.processes < 1 or option.collectonly or session.testsfailed or not session.items:
        return None
    _Processes(session).run(min(option.processes, len(session.items)))
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    return True


class _Processes:
    """The processes that run the tests, each with a deque of the numbers of its tests."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session
        self._hook = session.config.hook
        self._shares: dict[Connection, deque[int]] = {}
        self._started: dict[Connection, ForkProcess] = {}
        # What each process is running.
        self._running: dict[Connection, int] = {}

    def run(self, number: int) -> None:
        """Returns when all tests have ended."""
        config = self._session.config
        reporter = config.pluginmanager.getplugin("terminalreporter")
        # A line for each file would be one for each test, as the files of several processes alternate.
        reporter.showfspath = False
        config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        fork = multiprocessing.get_context("fork")
        tests = range(len(self._session.items))
        each = math.ceil(len(tests) / number)
        for position in range(number):
            ours, theirs = fork.Pipe()
            process = fork.Process(
                target=_Runner(self._session, f"gw{position}", theirs).run,
                args=(die_with_parent(signal.SIGTERM),),
            )
            self._shares[ours] = deque(tests[position * each : (position + 1) * each])
            self._started[ours] = process
            process.start()
            theirs.close()
        try:
            while self._started:
                for connection in wait(list(self._started)):
                    assert isinstance(connection, Connection)
                    self._hear(connection)
        finally:
            for process in self._started.values():
                process.join(_PATIENCE_SECONDS)
                process.kill()

    def _hear(self, connection: Connection) -> None:
        try:
            said, about = connection.recv()
        except EOFError:
            self._ended(connection, "The process of this test ended without a word.")
            return
        if said == "next":
            connection.send(self._next(connection))
        elif said == "begins":
            self._running[connection] = about
            item = self._session.items[about]
            self._hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        elif said == "report":
            report = self._hook.pytest_report_from_serializable(
                config=self._session.config, data=about
            )
            self._hook.pytest_runtest_logreport(report=report)
        elif said == "ends":
            item = self._session.items[self._running.pop(connection)]
            self._hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        elif said == "failed":
            self._ended(connection, about)
        else:
            self._hook.pytest_process_ended(output=about)
            self._ended(connection, None)

    def _next(self, connection: Connection) -> int | None:
        """Returns the number of the test that comes next in this process, or None if none is left."""
        if self._session.shouldfail or self._session.shouldstop:
            return None
        share = self._shares[connection]
        if not share:
            largest = max(self._shares.values(), key=len)
            taken = [largest.pop() for _ in range(math.ceil(len(largest) / 2))]
            share.extend(reversed(taken))
        return share.popleft() if share else None

    def _ended(self, connection: Connection, reason: str | None) -> None:
        """Fails the test that a process was running, if it ended for a reason. Others take over its share."""
        self._started.pop(connection).join()
        connection.close()
        if reason is None:
            return
        number = self._running.pop(connection, None)
        nodeid, location = "a process of the tests", ("", number, "")
        if number is not None:
            nodeid, location = (item := self._session.items[number]).nodeid, item.location
        report = pytest.TestReport(nodeid, location, {}, "failed", reason, "call")
        self._hook.pytest_runtest_logreport(report=report)


class _Runner:
    """Runs the tests that this process is given, and tells the first process of them. It is the plugin that hears."""

    def __init__(self, session: pytest.Session, name: str, connection: Connection) -> None:
        self._session = session
        self._config = session.config
        self._name = name
        self._connection = connection

    def run(self, die_with_parent: Any) -> None:
        """Runs tests until none is left."""
        die_with_parent()
        try:
            self._prepare()
            try:
                self._run_all()
            finally:
                self._config.hook.pytest_sessionfinish(session=self._session, exitstatus=0)
        except KeyboardInterrupt:
            return
        except BaseException:
            self._tell("failed", traceback.format_exc())
        else:
            self._tell("output", self._config.workeroutput)  # type: ignore[attr-defined]

    def _prepare(self) -> None:
        """Parts what the fork shares with its parent: files, directories and the terminal."""
        config: Any = self._config
        os.environ[NAME] = self._name
        config.workerinput, config.workeroutput = {"workerid": self._name}, {}
        plugins = config.pluginmanager
        plugins.unregister(plugins.getplugin("terminalreporter"))
        plugins.register(self, "forked-tests")
        capture = plugins.getplugin("capturemanager")
        capture.stop_global_capturing()
        capture.start_global_capturing()
        temporary: Path = config._tmp_path_factory.getbasetemp() / self._name
        temporary.mkdir()
        config._tmp_path_factory._basetemp = temporary

    def _run_all(self) -> None:
        # A test must know which comes next, to keep the fixtures that both share.
        number = self._ask()
        while number is not None:
            following = self._ask()
            self._tell("begins", number)
            items = self._session.items
            self._config.hook.pytest_runtest_protocol(
                item=items[number], nextitem=None if following is None else items[following]
            )
            self._tell("ends", None)
            number = following

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Hands a report over."""
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._tell("report", data)

    def _ask(self) -> int | None:
        self._tell("next", None)
        number: int | None = self._connection.recv()
        return number

    def _tell(self, what: str, about: Any) -> None:
        self._connection.send((what, about))

"""Fixtures that every app's tests share: databases, a small cast, a served API.

Most tests run in a transaction that is rolled back (`db`). Tests that need commits, for races on real
connections or for other processes, take `own_database`: a clone of the migrated test database that is
dropped afterwards. Nothing here empties tables, since the audit log's table refuses that.
"""

import gc
import os
import ssl
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from django.conf import settings
from django.db import connection
from httpx._transports import default
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from psycopg.pq import TransactionStatus

from bin.suite import migrated_cluster
from pipedai.api import throttling
from testing.probes.error_codes import CODES, HANDED_OVER, hearing_errors, is_whole_suite
from testing.probes.leaks import Watch, hearing, leaks_in, watching
from testing.probes.planted import noting, planted
from testing.probes.tables import contents_as_text
from testing.probes.whole_session import LogTail, dump_of
from testing.processes.web_process import Server, serve_in_bounds
from testing.processes.webhook_receiver import Receiver, receiving
from testing.world import first_database, known_hashes
from testing.world.cast import Cast, make_cast
from testing.world.database_copy import database_copy, instead_of_the_default
from testing.world.kept_rows import Kept
from testing.world.stage import Stage, set_stage
from workspaces.ceilings import PROFILE

_DATABASE = {"db", "own_database"}
# The memory of a served API's process, which takes 150 MiB when it is idle, and which no request may exceed.
_SERVER_MIB = 512
# After so many tests a process renews its database, which costs as much as the dead rows of this many tests.
_TESTS_OF_A_DATABASE = 150

# The tests of this directory share a site and machines, which each process that runs some of them has to start.
_SHARING = "agent/tests/real"
# How many seconds the tests of a file with long ones, or of that directory, take beside the whole suite on two cores,
# where it is 20 or more.
_SECONDS = {
    _SHARING: 590.0,
    "bench/tests/test_bench.py": 276.0,
    "pipedai/tests/test_contract.py": 108.0,
    "agent/tests/test_conformance.py": 97.0,
    "console/tests/test_story.py": 96.0,
    "console/tests/test_browser.py": 79.0,
    "deploy/tests/test_vm.py": 60.0,
    "bin/tests/test_tour.py": 58.0,
    "bin/tests/test_stack.py": 52.0,
    "workers/tests/test_published_client.py": 36.0,
    "console/tests/test_live_runs.py": 33.0,
    "agent/tests/test_installing.py": 29.0,
    "pipedai/tests/test_neighbours.py": 27.0,
    "deploy/tests/test_image.py": 24.0,
    "console/tests/test_sign_in_in_browser.py": 21.0,
}
# A long test of another file.
_USUAL_SECONDS = 3.0
# How many seconds the tests of a file take that are not long, where they mostly wait.
_WAITING = {
    "agent/tests/test_conformance.py": 22.0,
    "agent/tests/test_credentials.py": 15.0,
    "agent/tests/test_looks.py": 16.0,
    "agent/tests/test_run_life.py": 16.0,
    "agent/tests/test_stopping.py": 25.0,
    "cli/tests/cli_tests/test_following.py": 26.0,
    "pipedai/api/tests/test_overload.py": 14.0,
    "triggers/run_events/tests/test_streams.py": 44.0,
    "triggers/webhooks/tests/test_sending.py": 26.0,
    "workers/tests/test_event_stream.py": 7.0,
    "workers/tests/test_followed_run.py": 20.0,
    "workers/tests/test_planted_secrets.py": 10.0,
    "workers/tests/test_stand_in_scenarios.py": 18.0,
}
# So many processes begin with these files. More would leave the processors idle at first, and fewer at the end.
_THAT_WAIT = 2

# Hypothesis has no time limit, since machines may be slow, and makes the same examples each time, so that
# a failure shows up in the change that caused it. `--hypothesis-profile default` tries other examples.
hypothesis_settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("suite")


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None,
    django_db_modify_db_settings: None,
    django_db_blocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[], None]]:
    """Does what pytest-django's fixture does, also if all selected tests take `own_database`.

    Its value renews the database, after a search for secrets that some test may have committed in it.
    """
    with planted() as known, noting(), hearing():
        shared = _shared_by_all(tmp_path_factory)
        leaks: list[str] = []

        def renew() -> None:
            with django_db_blocker.unblock():
                for table, text in contents_as_text().items():
                    leaks.extend(leaks_in(f"committed in {table}", text, known))
                first_database.renew()

        with django_db_blocker.unblock():
            made = first_database.set_up(shared)
        log = LogTail.of_postgres()
        yield renew
        leaks += leaks_in("dump", dump_of(connection.settings_dict["NAME"]), known)
        with django_db_blocker.unblock():
            first_database.tear_down(made, shared)
        leaks += leaks_in("PostgreSQL's log", log.read(), known)
    assert not leaks, "\n".join(leaks)


@pytest.fixture(scope="session")
def kept_cast(django_db_setup: None, django_db_blocker) -> Kept[Cast]:
    """Makes the cast whose rows the tests get."""
    with django_db_blocker.unblock():
        return Kept.make(make_cast)


@pytest.fixture(scope="session")
def kept_stage(django_db_setup: None, django_db_blocker) -> Kept[Stage]:
    """Makes the cast and the stage whose rows the tests of all routes get."""
    with django_db_blocker.unblock():
        return Kept.make(lambda: set_stage(make_cast()))


@pytest.fixture
def cast(kept_cast: Kept[Cast], db: None) -> Cast:
    """Gives the test a workspace with its people, keys and worker: see testing.world.cast."""
    return kept_cast.put_back()


@pytest.fixture
def stage(kept_stage: Kept[Stage], db: None) -> Stage:
    """Gives the test a cast, as `stage.cast`, and a row for every id in URLs: see testing.world.routes."""
    return kept_stage.put_back()


@pytest.fixture
def own_database(django_db_setup: None, django_db_blocker) -> Iterator[str]:
    """Makes a database for this test alone, in which commits are real, and returns its name. Threads use it too."""
    with (
        django_db_blocker.unblock(),
        database_copy(first_database.kept()) as name,
        instead_of_the_default(name),
    ):
        yield name


@pytest.fixture
def committed_cast(kept_cast: Kept[Cast], own_database: str) -> Cast:
    """Commits the cast in the test's own database."""
    return kept_cast.put_back()


@pytest.fixture
def committed_stage(kept_stage: Kept[Stage], own_database: str) -> Stage:
    """Commits the cast and the stage in the test's own database."""
    return kept_stage.put_back()


@pytest.fixture
def ceilings() -> Iterator[dict[str, int]]:
    """Lets the test change the profile of ceilings by their names in the API."""
    with patch.dict(PROFILE):
        yield PROFILE


@pytest.fixture(scope="session")
def kept_cluster() -> Path:
    """Makes the migrated cluster that servers of a test's own start with, if no earlier run of bin/test has."""
    return migrated_cluster(os.environ)


def _shared_by_all(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """Returns the temporary directory of all processes of pytest-xdist, or None if there is one process."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else None


@pytest.fixture
def server(own_database: str, tmp_path: Path) -> Iterator[Server]:
    """Serves the API by gunicorn, as `bin/run` does, on the test's own database, and watches its memory."""
    log = tmp_path / "web.log"
    with serve_in_bounds(own_database, log=log, most_mib=_SERVER_MIB) as served:
        yield served
    short = "MemoryError" in log.read_text()
    assert not short, f"A request made the server take more than {_SERVER_MIB} MiB: see {log}"


@pytest.fixture
def receiver(settings) -> Iterator[Receiver]:
    """Starts a receiver of webhooks on the loopback address, which webhooks may reach in this test."""
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)
    with receiving() as receiver:
        yield receiver


@pytest.fixture(autouse=True)
def watch() -> Iterator[Watch]:
    """The watch that fails the test if it finds one of the test's secrets anywhere.

    It also fails the test in which the API answers an error without a `code` that API.md lists. Each fixture that all
    tests take costs a second or two of the suite, so there is only this one.
    """
    with watching() as watch:
        yield watch
        watch.look_at_log_files()
    faults = [*watch.leaks, *CODES.faults_since_last()]
    assert not faults, "\n".join(faults)


@pytest.fixture(scope="session", autouse=True)
def _same_for_all_tests() -> Iterator[None]:
    """Hears errors, computes no hash twice, reads the trusted certificates once, and makes every window of a throttle
    last a century, so that none ends during a test that counts calls. The settings are those of development, whatever
    the environment says.
    """
    assert not settings.PRODUCTION
    longer = throttling._COUNT.replace("%(seconds)s", "greatest(%(seconds)s, 3155760000)")
    with hearing_errors(), known_hashes.computed_once(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttling, "_COUNT", longer)
        patch.setattr(default, "create_ssl_context", _certificates_read_once)
        yield


def _certificates_read_once(
    verify: Any = True, cert: Any = None, *, trust_env: bool = True
) -> ssl.SSLContext:
    """Does as httpx's own function, which takes 7 ms for each client."""
    if verify is not True or cert is not None:
        return httpx.create_ssl_context(verify, cert, trust_env)
    return _trusted(trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@cache
def _trusted(trust_env: bool, *_variables: str | None) -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=trust_env)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Takes over the codes that the tests of one process of pytest-xdist brought about."""
    CODES.seen.update(getattr(node, "workeroutput", {}).get(HANDED_OVER, ()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fails a whole session whose tests passed without bringing about each error code."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput[HANDED_OVER] = sorted(CODES.seen)
    elif exitstatus == pytest.ExitCode.OK and is_whole_suite(config) and CODES.missing():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Names the error codes that the whole suite brought about nowhere."""
    if is_whole_suite(config) and (missing := CODES.missing()):
        terminalreporter.section("error codes that no test brings about", red=True)
        terminalreporter.line(", ".join(missing))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deals the files of long tests out to all processes of the suite but one, so that each begins with its share.

    The shares take about equally long, because a process that begins a file of minutes late ends alone. The long tests
    mostly wait for the processes that they start, as some others do, which are dealt out with them. The last process
    has the processors meanwhile, and the others take over from it in the end. Without long tests, the first processes
    begin with those others, for the same reason.
    The tests of a file that is dealt out stay together, as they share what the file starts. The order is random
    otherwise.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    shares: list[list[pytest.Item]] = [[] for _ in range(max(1, processes - 1))]
    long: dict[str, list[pytest.Item]] = defaultdict(list)
    waiting: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        path = str(item.path.relative_to(settings.BASE_DIR))
        if item.get_closest_marker("long"):
            long[_SHARING if path.startswith(_SHARING) else path].append(item)
        elif path in _WAITING:
            waiting[path].append(item)
    if long:
        usual = {path: _USUAL_SECONDS * len(file) for path, file in long.items()}
        for path, file in waiting.items():
            long[path] += file
        _deal(long, usual | _WAITING | _SECONDS, shares)
    else:
        _deal(waiting, _WAITING, shares[:_THAT_WAIT])
    dealt = set().union(*shares)
    others = [item for item in items if item not in dealt]
    left = len(items)
    items.clear()
    for number in range(processes):
        share = shares[number] if number < len(shares) else []
        # pytest-xdist gives each process consecutive tests, this part of those that are left.
        part = left // (processes - number)
        left -= part
        room = max(0, part - len(share))
        items += [*share, *others[:room]]
        others = others[room:]
    items += others


def _deal(
    files: dict[str, list[pytest.Item]],
    seconds: Mapping[str, float],
    shares: list[list[pytest.Item]],
) -> None:
    """Adds each file to one of the shares, so that these take about equally long."""
    taken = [0.0 for _ in shares]
    for path in sorted(files, key=seconds.__getitem__, reverse=True):
        least = taken.index(min(taken))
        shares[least] += files[path]
        taken[least] += seconds[path]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Lets the collection of the tests, which keeps what it makes, take no time for garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Makes tests and their children cheaper.

    The garbage collector no longer looks, again and again, through all that the collected tests have imported. The
    children find no package that is installed for the tests alone.
    """
    os.environ["PYTHONPATH"] = str(settings.BASE_DIR / "testing/processes/without_dev_packages")
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_runtest_setup() -> None:
    """Lets each test's password hashes begin with the same salt."""
    known_hashes.begin_salts_anew()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Iterator[None]:
    """Searches the tables for secrets before the test's transaction is rolled back or its database is dropped.

    A search costs as much as many tests do. So without the long tests, which is how bin/test runs, there is only one
    after a test that has planted a secret of its own.
    """
    watch, directory = item.funcargs["watch"], item.funcargs.get("tmp_path")
    assert isinstance(watch, Watch)
    watch.is_thorough = item.config.option.markexpr != "not long"
    yield
    watch.directory = directory if isinstance(directory, Path) else None
    if not watch.searches_tables:
        return
    if _DATABASE & set(item.fixturenames) or item.get_closest_marker("django_db"):
        connection.ensure_connection()
        # The rows of a broken transaction can't be read, and will never be committed.
        if connection.connection.info.transaction_status != TransactionStatus.INERROR:
            watch.look_at_tables()


_since_renewed = 0


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Function, nextitem: pytest.Item | None) -> Iterator[None]:
    """Renews the database now and then, between two tests."""
    global _since_renewed
    yield
    _since_renewed += "django_db_setup" in item.funcargs
    if _since_renewed >= _TESTS_OF_A_DATABASE and nextitem is not None:
        _since_renewed = 0
        renew = item.funcargs["django_db_setup"]
        assert callable(renew)
        renew()

"""bin/test: runs every check of the project, with a database of its own that is removed afterwards."""

import base64
import hashlib
import os
import platform
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import IO

from bin import changed
from bin.ending import Afterwards, die_with_parent
from pipedai.embedded.cluster import FASTER, Layout, only_one
from pipedai.embedded.server import EmbeddedPostgres

_ROOT = Path(__file__).resolve().parent.parent
_HELP = """\
usage: bin/test [--all | --changed] [--no-checks] [PYTEST ARGUMENTS]

Runs the tests, and beside them the linter, the formatter, the type checker and other static checks. All run,
whatever fails before; the exit code tells whether all passed. The tests that take long (marked so) are left
out, unless you say --all or name files: `bin/test workers -k claim`. Such arguments go to pytest. --no-checks
skips the static checks.

--changed runs, of the tests that are not long, those that the difference to the branch main concerns: the
tests that lie beside what has changed, that import it, or that name a changed document. It is for quick
answers while you work; say bin/test before you commit.

The tests use a PostgreSQL of their own in a temporary directory, or the server that TEST_DATABASE_URL names;
a running bin/run and your settings are left alone.

As root on Debian or Ubuntu, --all also installs the system packages whose programs some long tests drive
(nginx, haproxy, pgbouncer, postgresql, chromium, nodejs, npm, libjson-c5, systemd), without starting their
services; elsewhere, where one is not there, its tests are skipped. The tests with the real Claude CLI are
skipped until you have run bin/setup --claude. In CI (CI=true) --all runs that itself, and skips nothing.
"""
NO_CHECKS, ALL, CHANGED = "--no-checks", "--all", "--changed"
_MEMORY = "/dev/shm"  # noqa: S108
# This variable is set if the database is a copy of a migrated cluster, so that the tests need not migrate it.
MIGRATED = "PIPEDAI_TESTS_MIGRATED"
_UNUSED_SECONDS = 86_400
_MANY_TESTS = 50
# Ctrl-C also reaches the check that is running. The check then has this many seconds to end by itself.
_PATIENCE_SECONDS = 15


def main() -> int:
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(_HELP, end="")
        return 0
    os.chdir(_ROOT)
    data_dir = new_data_dir()
    environment = environment_of(data_dir)
    clean_up = Afterwards("exec python -m bin.ending", environment)
    try:
        if not environment["DATABASE_URL"]:
            copy_cluster(migrated_cluster(environment), data_dir)
            environment[MIGRATED] = "1"
            # The suite starts the server before the tests do, as only the suite gives it the fast, unsafe settings.
            EmbeddedPostgres(data_dir, faster=FASTER).ensure_running()
        pytest_arguments = [each for each in arguments if each not in (NO_CHECKS, ALL, CHANGED)]
        quick = CHANGED in arguments
        if quick:
            concerned = changed.tests(_ROOT, changed.files(_ROOT))
            print(f"The difference to main concerns {len(concerned)} files of tests.", flush=True)
            pytest_arguments += concerned
        named = [each for each in pytest_arguments if not each.startswith("-")]
        return Suite(environment).run(
            None if quick and not concerned else pytest_arguments,
            only_tests=NO_CHECKS in arguments,
            long=ALL in arguments
            or (not quick and any(Path(each.partition("::")[0]).exists() for each in named)),
            programs=ALL in arguments,
        )
    finally:
        clean_up.now()


class Suite:
    """Runs the tests, and beside them the checks that only read code. It stops them when a signal comes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._failed: list[str] = []
        self._stopped_by = 0
        self._deadline = float("inf")
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._stop)

    def run(
        self, pytest_arguments: list[str] | None, *, only_tests: bool, long: bool, programs: bool
    ) -> int:
        """Return the exit code. Without arguments no test runs. `programs` installs the programs of some tests."""
        # Tests and installations often wait, so the other checks use the processors at the same time.
        with ThreadPoolExecutor(1) as beside:
            others = None if only_tests else beside.submit(self._check_without_running)
            if programs:
                self._check("Programs", [sys.executable, "-m", "bin.packages"])
                self._check("Advisories", [sys.executable, "-m", "bin.advisories"])
                if self._environment.get("CI") == "true":
                    # npm, which installs the Claude CLI, is one of the packages.
                    self._check("Claude", [sys.executable, "-m", "bin.claude"])
            if pytest_arguments is not None:
                self._test(pytest_arguments, compiles=not only_tests, long=long)
            if others is not None:
                others.result()
        return self._verdict()

    def _test(self, arguments: list[str], *, compiles: bool, long: bool) -> None:
        if compiles and _many_tests_are_not_compiled():
            # One process compiles the test modules, so that not every test process does it. Its output is dropped.
            with tempfile.TemporaryFile() as output:
                self._run("", ["pytest", "--collect-only", "-qq", *arguments], {}, output)
        # Many tests wait, so there are more processes than processors. With one less the processors are idle at times;
        # one more takes more CPU time to collect the tests, and by crowding the processors, than its tests wait.
        processes = 3 + min(8, max(2, os.cpu_count() or 2))
        # Each process takes consecutive tests, because the tests of one module share what the module starts. A
        # process that has run out of tests takes over some of another's.
        among = ["-n", str(processes), "--dist", "worksteal", *([] if long else ["-m", "not long"])]
        self._check("Tests", ["pytest", *among, *arguments])

    def _check_without_running(self) -> None:
        """Run the checks that only read the code, and start no part of the service."""
        manage = [sys.executable, "manage.py"]
        self._check_aside("Lint", ["ruff", "check", "."])
        self._check_aside("Format", ["ruff", "format", "--check", "."])
        self._check_aside("Types", ["mypy", "--cache-dir", str(types_cache()), "."])
        # The worker's package is in the directory agent/, where the tool would not find it by itself.
        self._check_aside("Imports", ["lint-imports", "--no-logo"], {"PYTHONPATH": "agent:cli"})
        self._check_aside("Migrations", [*manage, "makemigrations", "--check", "--dry-run"])
        self._check_aside("Safe migrations", [sys.executable, "-m", "bin.migration_check"])
        self._check_aside("Changelog and dates", [sys.executable, "-m", "bin.source_check"])
        schema = ["spectacular", "--fail-on-warn", "--format", "openapi-json"]
        self._check_aside("Schema", [*manage, *schema, "--file", os.devnull])
        deploy = [*manage, "check", "--deploy", "--fail-level", "WARNING"]
        self._check_aside("Production settings", deploy, production_settings())

    def _verdict(self) -> int:
        if self._stopped_by:
            return 128 + self._stopped_by
        if self._failed:
            print(f"\nFailed: {', '.join(self._failed)}", flush=True)
        return 1 if self._failed else 0

    def _check(self, name: str, command: list[str], settings: Mapping[str, str] = {}) -> None:
        if self._run(name, command, settings):
            self._failed.append(name)

    def _check_aside(self, name: str, command: list[str], settings: Mapping[str, str] = {}) -> None:
        """Run a check, and print all of its output in one piece at its end."""
        with tempfile.TemporaryFile() as output:
            if self._run(name, command, settings, output):
                self._failed.append(name)
            output.seek(0)
            said = output.read().decode(errors="replace")
        print(f"\n{name}: {shlex.join(command)}\n{said}", flush=True)

    def _run(
        self,
        name: str,
        command: list[str],
        settings: Mapping[str, str] = {},
        output: IO[bytes] | None = None,
    ) -> int:
        """Return the exit code of a command, which is ended at the deadline; 0 if a signal came before it began."""
        if self._stopped_by:
            return 0
        if output is None:
            print(f"\n{name}: {shlex.join(command)}", flush=True)
        running = subprocess.Popen(
            command,
            env={**self._environment, **settings},
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
        while running.poll() is None:
            try:
                running.wait(timeout=1)
            except subprocess.TimeoutExpired:
                if time.monotonic() > self._deadline:
                    running.terminate()
        return running.returncode

    def _stop(self, signum: int, _frame: FrameType | None) -> None:
        self._stopped_by = signum
        self._deadline = time.monotonic()
        if signum == signal.SIGINT:
            self._deadline += _PATIENCE_SECONDS


def _many_tests_are_not_compiled() -> bool:
    """Whether so many test modules are new that each process would compile them for longer than one collects them."""
    tag = f".{sys.implementation.cache_tag}-pytest-{version('pytest')}.pyc"
    stale = 0
    for source in _ROOT.glob("[!.]*/**/test_*.py"):
        compiled = source.parent / "__pycache__" / f"{source.stem}{tag}"
        stale += not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime
    return stale > _MANY_TESTS


def new_data_dir() -> Path:
    """Make a data directory that PostgreSQL's user may enter, in memory if there is room: that halves the CPU time."""
    places = ["/var/tmp", "/tmp"]  # noqa: S108
    if _may_hold_a_database(_MEMORY):
        places.insert(0, _MEMORY)
    place = next(place for place in places if os.access(place, os.W_OK))
    data_dir = Path(tempfile.mkdtemp(prefix="pipedai-test-", dir=place))
    if os.geteuid() == 0:
        data_dir.chmod(0o711)
    return data_dir


def kept_files() -> Path:
    """Return the directory of files that later runs use again: the user's, for all checkouts, or this checkout's."""
    shared = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pipedai-tests"
    with suppress(OSError):
        shared.mkdir(parents=True, exist_ok=True)
    return shared if os.access(shared, os.W_OK) else _ROOT / ".cache"


def migrated_cluster(environment: Mapping[str, str]) -> Path:
    """Return a stopped and migrated cluster for `copy_cluster`. The first run with these migrations makes it."""
    clusters = kept_files() / "clusters"
    clusters.mkdir(parents=True, exist_ok=True)
    kept = clusters / _name_of_cluster()
    with only_one(clusters / "lock", seconds=300):
        if not kept.exists():
            draft = clusters / "draft"
            shutil.rmtree(draft, ignore_errors=True)
            # The server's user may not be able to reach this user's directories, so the cluster is made elsewhere.
            data_dir = new_data_dir()
            try:
                server = EmbeddedPostgres(data_dir, faster=FASTER)
                server.ensure_running()
                release = [sys.executable, "manage.py", "release", "-v0"]
                to_server = {**environment, "DATABASE_URL": server.url()}
                subprocess.run(release, cwd=_ROOT, env=to_server, check=True)
                server.stop()
                copy_cluster(data_dir, draft)
            finally:
                EmbeddedPostgres(data_dir).stop()
                shutil.rmtree(data_dir)
            # The server did not write its data safely to disk, and a kept cluster must survive a crash of the machine.
            os.sync()
            draft.rename(kept)
        return used(kept)


def types_cache() -> Path:
    """Return mypy's cache for exactly these modules. With the cache of other modules mypy reports false errors."""
    modules = "\n".join(sorted(str(each) for each in _ROOT.glob("[!.]*/**/*.py"))).replace(
        str(_ROOT), ""
    )
    return used(kept_files() / "mypy" / hashlib.sha256(modules.encode()).hexdigest()[:16])


def used(kept: Path) -> Path:
    """Mark a kept directory as used now, and remove the directories beside it that no run has used for a day."""
    kept.mkdir(parents=True, exist_ok=True)
    os.utime(kept)
    for other in kept.parent.iterdir():
        # The clock of a run may be ahead of the file system's, because a developer may run it with another date.
        if (
            other != kept
            and other.is_dir()
            and other.stat().st_mtime < time.time() - _UNUSED_SECONDS
        ):
            shutil.rmtree(other, ignore_errors=True)
    return kept


def _name_of_cluster() -> str:
    """Return a hash of everything on which the contents of a migrated cluster depend."""
    # The migrations make the partitions of the present month.
    told = hashlib.sha256(f"{time.strftime('%Y-%m')} {platform.machine()}".encode())
    files = sorted(_ROOT.glob("*/migrations/*.py"))
    imported = re.findall(
        r"^(?:from|import) (\S+)", "".join(path.read_text() for path in files), re.MULTILINE
    )
    ours = [_ROOT / f"{name.replace('.', '/')}.py" for name in sorted(set(imported))]
    more = [_ROOT / "requirements.txt", _ROOT / "pipedai/embedded/cluster.py"]
    for path in [*files, *filter(Path.is_file, ours), *more]:
        told.update(path.read_bytes())
    return told.hexdigest()[:16]


def copy_cluster(kept: Path, data_dir: Path) -> None:
    """Copy a kept cluster into a data directory, so that its server need not make a new one."""
    Layout(data_dir).prepare_data_dir()
    layout = Layout(kept)
    # shutil would not keep the owners of the files.
    command = ["cp", "-a", str(layout.cluster), str(layout.passwords), str(data_dir)]
    subprocess.run(command, check=True)


def _may_hold_a_database(place: str) -> bool:
    """Whether a file system has 4 GiB of free space, and allows programs to run from it."""
    try:
        found = os.statvfs(place)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize > 4 * 1024**3 and not found.f_flag & os.ST_NOEXEC


def environment_of(data_dir: Path) -> dict[str, str]:
    """Return this process's environment with every setting empty, because absent ones would come from the file .env."""
    listed = (_ROOT / ".env.example").read_text()
    names = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", listed, re.MULTILINE)
    return {
        **os.environ,
        **dict.fromkeys(names, ""),
        # One web process is enough. gunicorn itself reads this variable too, and some tests start gunicorn directly.
        "WEB_CONCURRENCY": "1",
        "DATABASE_URL": os.environ.get("TEST_DATABASE_URL", ""),
        "PIPEDAI_DATA_DIR": str(data_dir),
        MIGRATED: "",
        # OpenTelemetry's variables are no settings of ours, and this one would send traces of the tests.
        "OTEL_EXPORTER_OTLP_ENDPOINT": "",
        # Python may write compiled files, so that each of hundreds of processes need not compile this project again.
        "PYTHONDONTWRITEBYTECODE": "",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }


def production_settings() -> dict[str, str]:
    """Return settings for the check of production settings, such as an operator would choose."""
    return {
        "PIPEDAI_ENV": "production",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "MASTER_KEYS": f"k1:{base64.b64encode(secrets.token_bytes(32)).decode()}",
        "ALLOWED_HOSTS": "api.example.com",
        "ALLOWED_ORIGINS": "https://app.example.com",
        "PUBLIC_URL": "https://api.example.com",
    }


if __name__ == "__main__":
    sys.exit(main())

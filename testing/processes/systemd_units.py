"""Runs a service as its systemd unit says, on a machine without systemd.

    python -m testing.processes.systemd_units /etc/systemd/system/pipedai-web.service

SIGHUP does what `systemctl restart` does, and SIGTERM what `systemctl stop` does. The process id is in /run/NAME.pid.
If there is a socket unit with the same name, its socket is opened first and stays open. Options that only harden the
service are ignored.
"""

import os
import pwd
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_FIRST_PASSED = 3


class Unit:
    """The file of a unit, which has `[Section]`s of `Name=value` lines."""

    def __init__(self, path: Path) -> None:
        self._values: dict[tuple[str, str], str] = {}
        section = ""
        for line in path.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                self._values[section, name] = value

    def __getitem__(self, name: tuple[str, str]) -> str:
        return self._values[name]

    def get(self, section: str, name: str, default: str) -> str:
        """Returns a value, or `default` if the unit does not set it."""
        return self._values.get((section, name), default)


class Service:
    """A service, and its process."""

    def __init__(self, path: Path) -> None:
        self._unit = Unit(path)
        self._user = pwd.getpwnam(self._unit["Service", "User"])
        beside = path.with_suffix(".socket")
        self._socket = _listen(Unit(beside)) if beside.exists() else None
        self._stop_seconds = float(self._unit["Service", "TimeoutStopSec"])
        self.process = self._start()

    def restart(self) -> None:
        """Stops the service and starts it again."""
        self.stop()
        self.process = self._start()

    def stop(self) -> None:
        """Sends SIGTERM, and SIGKILL if the service takes longer to stop than the unit allows."""
        self.process.terminate()
        try:
            self.process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            print("killed, as it did not stop in time", flush=True)  # noqa: T201
            self.process.kill()
            self.process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = shlex.split(self._unit["Service", "ExecStart"])
        passed: tuple[int, ...] = ()
        if self._socket is not None:
            # LISTEN_PID must be the process's own pid, so a shell sets it in that process.
            command = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command]
            passed = (_FIRST_PASSED,)
        return subprocess.Popen(  # noqa: S603
            command,
            cwd=self._unit["Service", "WorkingDirectory"],
            env=dict(self._environment()),
            user=self._user.pw_uid,
            group=self._user.pw_gid,
            extra_groups=[],
            umask=int(self._unit.get("Service", "UMask", "0022"), 8),
            pass_fds=passed,
            start_new_session=True,
        )

    def _environment(self) -> Iterator[tuple[str, str]]:
        yield from {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
            "LANG": "C.UTF-8",
            "HOME": self._user.pw_dir,
            "USER": self._user.pw_name,
            "LOGNAME": self._user.pw_name,
            "SHELL": self._user.pw_shell,
        }.items()
        for line in Path(self._unit["Service", "EnvironmentFile"]).read_text().splitlines():
            if "=" in line and not line.startswith(("#", ";")):
                name, _, value = line.partition("=")
                yield name, shlex.split(value)[0] if value else ""


def _listen(unit: Unit) -> socket.socket:
    """Opens the unit's socket with the file descriptor number from which a service takes it."""
    path = Path(unit["Socket", "ListenStream"])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    shutil.chown(path, unit["Socket", "SocketUser"])
    path.chmod(int(unit["Socket", "SocketMode"], 8))
    listener.listen(int(unit["Socket", "Backlog"]))
    if listener.fileno() != _FIRST_PASSED:
        os.dup2(listener.fileno(), _FIRST_PASSED, inheritable=False)
    return listener


def main(path: Path) -> int:
    """Runs the service until SIGTERM or until it ends by itself, and returns the exit code."""
    asked: list[int] = []

    def ask(number: int, _frame: object) -> None:
        asked.append(number)

    signal.signal(signal.SIGHUP, ask)
    signal.signal(signal.SIGTERM, ask)
    Path(f"/run/{path.stem}.pid").write_text(str(os.getpid()))
    service = Service(path)
    while service.process.poll() is None:
        time.sleep(0.05)
        while asked:
            if asked.pop(0) == signal.SIGTERM:
                service.stop()
            else:
                service.restart()
    return service.process.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

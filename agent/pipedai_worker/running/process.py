"""Runs a program in a process group of its own, reads its output in bounded memory, and ends the group with it."""

from __future__ import annotations

import codecs
import contextlib
import os
import platform
import re
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pipedai_worker.redact import RedactingStream, Redactor
from pipedai_worker.running.stopping import StopReason
from pipedai_worker.values import has_too_many_values, parse

# While a program writes nothing, the worker checks this often whether to stop it.
TICK_SECONDS = 0.1
CHUNK_BYTES = 64 * 1024
# A process that the program left behind may hold its output open, which is read for so many seconds more.
PIPE_GRACE_SECONDS = 1.0

Sink = Callable[[bytes], None]


@dataclass(frozen=True)
class Ending:
    """How a program ended: its exit code, as a shell would give it, and the reason if the worker stopped it."""

    exit_code: int
    stopped_by: StopReason | None
    signal_name: str | None = None

    @property
    def killed(self) -> bool:
        return self.signal_name is not None or self.stopped_by is not None

    @property
    def description(self) -> str:
        """Describe for a person how the program ended, as in `exited with code 3` or `was ended by SIGSEGV`."""
        if self.signal_name:
            return f"was ended by {self.signal_name}"
        return f"exited with code {self.exit_code}"


class Program:
    def __init__(
        self, argv: Sequence[str], *, stdin: bytes, directory: Path, environment: Mapping[str, str]
    ) -> None:
        # The input is a file. Through a pipe the worker would have to keep writing while the program is slow to read.
        with tempfile.TemporaryFile() as input_file:
            input_file.write(stdin)
            input_file.seek(0)
            self._process = subprocess.Popen(
                list(argv),
                stdin=input_file,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.started = start_time(self.pid)

    def supervise(
        self,
        *,
        stdout: Sink,
        stderr: Sink,
        should_stop: Callable[[], StopReason | None],
        term_grace: Callable[[], float],
        interrupt_first: bool = False,
    ) -> Ending:
        """Read the program's output until it ends. If `should_stop` returns a reason, its process group gets SIGTERM
        and, `term_grace` seconds later, SIGKILL. With `interrupt_first` the program gets SIGINT for the first half of
        that time. Processes that it leaves in its group are killed.
        """
        try:
            with _Pipes(self._process, stdout, stderr) as pipes:
                stopping = _stopping(self, term_grace, interrupt_first)
                stopped_by = self._follow(pipes, should_stop, stopping)
                signal_group(self.pid, signal.SIGKILL)
                pipes.read_rest()
        finally:
            signal_group(self.pid, signal.SIGKILL)
        code = self._process.wait()
        if code >= 0:
            return Ending(code, stopped_by)
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return Ending(128 - code, stopped_by, name)

    def _follow(
        self,
        pipes: _Pipes,
        should_stop: Callable[[], StopReason | None],
        stopping: Iterator[None],
    ) -> StopReason | None:
        stopped_by: StopReason | None = None
        while not self._has_ended():
            pipes.read(TICK_SECONDS)
            if stopped_by is None:
                stopped_by = should_stop()
            if stopped_by is not None:
                next(stopping)
        # The program has ended, but a process that it left behind may still hold its output open.
        ended_at = time.monotonic()
        while pipes.open and time.monotonic() - ended_at < PIPE_GRACE_SECONDS:
            pipes.read(TICK_SECONDS)
        return stopped_by

    def _has_ended(self) -> bool:
        """Tell whether the program has ended, without reaping it: afterwards its group's id could be used again."""
        if hasattr(os, "waitid"):
            options = os.WEXITED | os.WNOHANG | os.WNOWAIT
            return os.waitid(os.P_PID, self.pid, options) is not None
        return self._process.poll() is not None

    def send(self, number: signal.Signals) -> None:
        """Send SIGINT to the program alone, which then ends its own children. Send other signals to its whole group."""
        if number == signal.SIGINT:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)
        else:
            signal_group(self.pid, number)


def _stopping(
    program: Program, grace: Callable[[], float], interrupt_first: bool
) -> Iterator[None]:
    """Send a program the signals that end it, each as soon as it is due: SIGINT to the program alone if wanted, then
    SIGTERM and SIGKILL to its group.
    """
    began_at = time.monotonic()
    if interrupt_first:
        program.send(signal.SIGINT)
        while time.monotonic() - began_at < grace() / 2:
            yield
    program.send(signal.SIGTERM)
    while time.monotonic() - began_at < grace():
        yield
    program.send(signal.SIGKILL)
    while True:
        yield


class _Pipes:
    """Reads the pipes of a program's stdout and stderr without blocking."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: Sink, stderr: Sink) -> None:
        self._selector = selectors.DefaultSelector()
        self._files: list[IO[bytes]] = []
        for file, sink in ((process.stdout, stdout), (process.stderr, stderr)):
            if file is not None:
                os.set_blocking(file.fileno(), False)
                self._selector.register(file, selectors.EVENT_READ, sink)
                self._files.append(file)

    def __enter__(self) -> _Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for file in self._files:
            file.close()

    @property
    def open(self) -> bool:
        return bool(self._selector.get_map())

    def read(self, timeout: float) -> bool:
        ready = self._selector.select(timeout)
        for key, _ in ready:
            try:
                chunk = os.read(key.fd, CHUNK_BYTES)
            except BlockingIOError:
                continue
            if chunk:
                key.data(chunk)
            else:
                self._selector.unregister(key.fileobj)
        return bool(ready)

    def read_rest(self) -> None:
        """Read what the pipes still hold, without waiting. Stop after 64 pieces, in case a process still writes."""
        for _ in range(64):
            if not self.open or not self.read(0):
                return


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def start_time(pid: int) -> str | None:
    """Return a text that differs for each process that ever has this id. Return None if there is no such process."""
    # Type checkers evaluate sys.platform, and would report the other branch as unreachable.
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The second field is the program's name in parentheses, which may itself contain spaces and parentheses, and
        # is cut after 15 bytes, perhaps within a character. Fields are counted after the last parenthesis. Field 22 is
        # the start time, in clock ticks since boot (proc(5)).
        return f"{boot}/{int(stat.rpartition(b')')[2].split()[19])}"
    shown = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None


LONGEST_LINE_BYTES = 4 * 1024 * 1024
# In a longer line, or one with too many values, each string is cut to this length, so that the rest can be read.
LONGEST_STRING_BYTES = 64 * 1024
# A string with fewer characters than this was certainly not cut, because JSON takes at most 12 bytes for a character.
SHORTEST_CUT_STRING = LONGEST_STRING_BYTES // 12 - 1

# Matches the inside of a JSON string, up to the closing quote or an escape (`\n`, `\u00e9`) that is not complete yet.
_STRING_INSIDE = re.compile(rb'[^"\\]*(?:\\(?:u[0-9a-fA-F]{4}|[^u])[^"\\]*)*', re.DOTALL)
_LONGEST_ESCAPE = 6
# The pattern is applied to pieces of this size, because the memory that it needs grows with the length of the text.
_PIECE_BYTES = 16 * 1024


class JsonLines:
    """Calls `sink` with each line that is a JSON object. In a line that is too long, long strings are cut first."""

    def __init__(self, sink: Callable[[dict[str, Any]], None]) -> None:
        self._sink = sink
        self._line = bytearray()
        self._cutter: StringCutter | None = None
        self._skipping = False

    def feed(self, chunk: bytes) -> None:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._append(chunk[start:end])
            self._end_line()
            start = end + 1
        self._append(chunk[start:])

    def finish(self) -> None:
        self._end_line()

    def _append(self, piece: bytes) -> None:
        if self._skipping:
            return
        if self._cutter is None and len(self._line) + len(piece) > LONGEST_LINE_BYTES:
            self._cutter = StringCutter(LONGEST_STRING_BYTES)
            self._line, piece = bytearray(), bytes(self._line) + piece
        self._line += self._cutter.feed(piece) if self._cutter else piece
        if len(self._line) > LONGEST_LINE_BYTES:
            self._skipping = True
            self._line.clear()

    def _end_line(self) -> None:
        line, self._line = bytes(self._line), bytearray()
        self._cutter, skipped, self._skipping = None, self._skipping, False
        if skipped or not line.lstrip().startswith(b"{"):
            return
        if has_too_many_values(line):
            line = StringCutter(LONGEST_STRING_BYTES).feed(line)
        try:
            value = parse(line.decode("utf-8", errors="replace"))
        except ValueError:
            return
        if isinstance(value, dict):
            self._sink(value)


class StringCutter:
    """Cuts every long string in a JSON text to a number of bytes. The text comes in pieces."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._inside = False
        self._kept = 0
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        starts = range(0, len(piece), _PIECE_BYTES)
        return b"".join(self._feed(piece[start : start + _PIECE_BYTES]) for start in starts)

    def _feed(self, piece: bytes) -> bytes:
        data, self._held = self._held + piece, b""
        left = []
        position = 0
        while position < len(data):
            if self._inside:
                end = self._end_of_inside(data, position)
                left.append(self._cut(data[position:end]))
                if end < len(data) and data[end : end + 1] != b'"':
                    # The text ends in the middle of an escape. The escape is kept until the next piece completes it.
                    self._held = data[end:]
                    break
            else:
                quote = data.find(b'"', position)
                end = quote if quote >= 0 else len(data)
                left.append(data[position:end])
            if end < len(data):
                left.append(b'"')
                self._inside, self._kept = not self._inside, 0
            position = end + 1
        return b"".join(left)

    @staticmethod
    def _end_of_inside(data: bytes, start: int) -> int:
        end = _matched(data, start)
        while (
            end < len(data) and data[end : end + 1] == b"\\" and end + _LONGEST_ESCAPE <= len(data)
        ):
            # JSON has no such escape. It is passed on unchanged, and the parser will refuse the whole line.
            end = _matched(data, end + 2)
        return end

    def _cut(self, inside: bytes) -> bytes:
        room = self._longest - self._kept
        if len(inside) <= room:
            self._kept += len(inside)
            return inside
        self._kept = self._longest
        return inside[: _matched(inside[:room], 0)]


def _matched(data: bytes, start: int) -> int:
    match = _STRING_INSIDE.match(data, start)
    return match.end() if match else start


# `Tail` keeps this many characters more than it was asked for, because blank lines at the end are removed later.
SPARE_CHARACTERS = 4096


class _Output:
    """Passes each piece of output, redacted, to `listener`. The end of a piece waits, as a secret may begin there."""

    def __init__(
        self, redactor: Redactor, length: int, listener: Callable[[str], None] = lambda _: None
    ) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._redacting = RedactingStream(redactor)
        self._length = length
        self._listener = listener
        self._kept = ""

    def feed(self, chunk: bytes) -> None:
        self._take(self._redacting.feed(self._decoder.decode(chunk)))

    def finish(self, ending: Ending) -> str:
        self._take(self._redacting.feed(self._decoder.decode(b"", final=True)))
        self._take(self._redacting.finish(cut_off=ending.killed))
        return self._kept.strip()

    def _take(self, text: str) -> None:
        if text:
            self._listener(text)
            self._keep(text)

    def _keep(self, text: str) -> None:
        raise NotImplementedError


class Head(_Output):
    """Keeps a little more than the first `length` characters, without white space at the beginning."""

    def _keep(self, text: str) -> None:
        # One character more than `length` is kept, so that the code that cuts the text sees that it was longer.
        if len(self._kept) <= self._length:
            self._kept = (self._kept + text).lstrip()[: self._length + 1]


class Tail(_Output):
    """Keeps a little more than the last `length` characters."""

    _cut = False

    def finish(self, ending: Ending) -> str:
        """Return the last characters of the output. If its beginning is cut off, the text begins with a whole line."""
        text = super().finish(ending)
        if self._cut or len(text) > self._length:
            text = text[-self._length :]
            _, newline, whole_lines = text.partition("\n")
            text = whole_lines if newline else text
        return text

    def _keep(self, text: str) -> None:
        self._kept += text
        room = self._length + SPARE_CHARACTERS
        if len(self._kept) > room:
            self._kept = self._kept[-room:]
            self._cut = True

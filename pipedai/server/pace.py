"""Watches that a client takes its answers fast enough: until then they are in our memory (SPEC §19)."""

import asyncio
import fcntl
import struct
import termios

# The least that a client must take, averaged over so many seconds in which there was something to take.
LEAST_BYTES_PER_SECOND = 1024
SECONDS = 30.0


class Pace:
    """How fast the client of one connection takes what is written to it.

    Between `stalled` and `emptied` the transport holds what the system did not take, and nothing more is written.
    """

    __slots__ = ("_left", "_loop", "_since", "_taken", "_timer", "_transport", "_waited")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        # Of the present period: for how long the client had something to take, and how much it took.
        self._waited = 0.0
        self._taken = 0
        # At the last look: when it was, and how much there was to take.
        self._since = 0.0
        self._left = 0
        self._timer: asyncio.TimerHandle | None = None

    def stalled(self) -> None:
        """The system takes no more of the answer at this moment."""
        self._since = self._loop.time()
        self._left = self._to_take()
        self._timer = self._loop.call_later(SECONDS - self._waited, self._judge)

    def emptied(self) -> None:
        """The system has taken all."""
        self.stop()
        self._look()

    def stop(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _judge(self) -> None:
        self._look()
        if self._taken < LEAST_BYTES_PER_SECOND * SECONDS:
            self._transport.abort()
            return
        self._waited, self._taken = 0.0, 0
        self.stalled()

    def _look(self) -> None:
        self._waited += self._loop.time() - self._since
        self._taken += self._left - self._to_take()

    def _to_take(self) -> int:
        """How many bytes of ours the client's machine has not confirmed.

        Those that our system holds are counted as well: it takes some hundred kilobytes, and takes more only when a
        third of them has gone.
        """
        buffered = self._transport.get_write_buffer_size()
        try:
            answer = fcntl.ioctl(
                self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4)
            )
        except OSError:
            return buffered  # the system does not tell
        return buffered + int(struct.unpack("i", answer)[0])

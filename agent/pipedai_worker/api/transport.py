"""Sends requests to the API, and bounds the bytes and seconds that an answer may take, which httpx does not."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import httpcore
import httpx

# How many bytes may come before the body of an answer: its head, interim answers (1xx), and what proxies say.
LARGEST_HEAD = 128 * 1024
# A request is sent in pieces of this size, and each of them only if there is still time.
PIECE_BYTES = 16 * 1024
EXTENSION = "pipedai_bounds"


class Bounds(NamedTuple):
    """What a request and its answer may take. With `streams`, a successful answer is a stream without bounds."""

    seconds: float = 60.0
    # The default is far more than what the API says of one run without its prompt.
    largest: int = 2 * 1024 * 1024
    streams: bool = False


ANSWER, STREAM = Bounds(), Bounds(streams=True)
# A hand-out and a page of events have 4 MiB at most, unless they have only one run (SPEC §19).
PAGE = Bounds(largest=8 * 1024 * 1024)


class BoundedTransport(httpx.HTTPTransport):
    """Sends each request within the Bounds that are its extension EXTENSION."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._left = _Left()
        # Only the network layer below httpx can count all bytes and give each read the time that is left.
        self._pool._network_backend = _Network(self._pool._network_backend, self._left)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        bounds: Bounds = request.extensions[EXTENSION]
        self._left.begin(bounds.seconds)
        response = super().handle_request(request)
        stream = cast("httpx.SyncByteStream", response.stream)
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            stream.close()
            raise httpx.RemoteProtocolError("it compressed its answer, although it must not")
        self._left.head_bytes = math.inf
        if bounds.streams and response.is_success:
            self._left.ends_at = math.inf
        else:
            response.stream = _Body(stream, bounds.largest)
        return response


class _Left(threading.local):
    """What is left of the bounds of the request that this thread sends."""

    ends_at = math.inf
    head_bytes: float = math.inf

    def begin(self, seconds: float) -> None:
        self.ends_at = time.monotonic() + seconds
        self.head_bytes = LARGEST_HEAD

    def seconds(self, timeout: float | None) -> float | None:
        left = self.ends_at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it took too long to answer")
        return timeout if math.isinf(left) else min(left, timeout or left)


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, largest: int) -> None:
        self._stream = stream
        self._largest = largest

    def __iter__(self) -> Iterator[bytes]:
        size = 0
        for piece in self._stream:
            size += len(piece)
            if size > self._largest:
                raise httpx.RemoteProtocolError(
                    f"its answer is larger than {self._largest // 1024} KiB"
                )
            yield piece

    def close(self) -> None:
        self._stream.close()


class _Network(httpcore.NetworkBackend):
    def __init__(self, network: httpcore.NetworkBackend, left: _Left) -> None:
        self._network = network
        self._left = left

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        seconds = self._left.seconds(timeout)
        stream = self._network.connect_tcp(host, port, seconds, local_address, socket_options)
        return _Connection(stream, self._left)


class _Connection(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, left: _Left) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._stream.read(max_bytes, self._left.seconds(timeout))
        self._left.head_bytes -= len(data)
        if self._left.head_bytes < 0:
            raise httpcore.RemoteProtocolError("it says too much before it answers")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE_BYTES):
            piece = buffer[start : start + PIECE_BYTES]
            self._stream.write(piece, self._left.seconds(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        seconds = self._left.seconds(timeout)
        return _Connection(
            self._stream.start_tls(ssl_context, server_hostname, seconds), self._left
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

"""Counts the bytes that a process holds for unanswered requests, and the requests of one subject. It reads a request's
whole body, within limits of size and time, before any other code works on the request.

A request counts for the workspace of its caller, from whatever address it comes, so that one tenant's calls from many
addresses are still one tenant's. Nobody has checked the caller yet when a request begins. So a process remembers for
which workspace a token was last accepted, and which source has signed an event from which address, since the events of
many tenants come from the same few addresses of a provider. All other requests count for their address.
"""

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from threading import Lock
from uuid import UUID

from django.http import HttpRequest
from rest_framework.request import Request

from pipedai.api.error_codes import ErrorCode
from pipedai.server.request_scope import (
    HOOKS,
    App,
    ClientGone,
    Message,
    RawHeaders,
    Receive,
    Refused,
    Scope,
    network_of,
)

# A process remembers at most this many senders: the digests of tokens, and pairs of a source and an address.
_MOST_SENDERS = 20_000
_Sender = bytes | tuple[str, str]
_workspaces: dict[_Sender, UUID] = {}
# Threads note senders at the same time.
_noting = Lock()


def note_sender(source_id: UUID, address: str, workspace_id: UUID) -> None:
    """Notes that a request from the address had a valid signature of a source of the workspace. A stranger who knows
    only the source's URL calls from another address, and so takes no turn of the workspace.
    """
    _note((str(source_id), address), workspace_id)


def note_caller(request: HttpRequest | Request, workspace_id: UUID) -> None:
    """Counts the request for the workspace from now on, because its caller was found to act there; and the later
    requests with the same token or session from their beginning.
    """
    holding = _holding_of(request)
    if holding is not None:
        holding.join(workspace_id)
        if holding.token is not None and _workspaces.get(holding.token) != workspace_id:
            _note(holding.token, workspace_id)


def _note(sender: _Sender, workspace_id: UUID) -> None:
    with _noting:
        _workspaces.pop(sender, None)
        _workspaces[sender] = workspace_id
        if len(_workspaces) > _MOST_SENDERS:
            del _workspaces[next(iter(_workspaces))]


def group_of(path: str, address: str, token: bytes | None = None) -> Hashable:
    """Returns the group for which a request to this path counts: the workspace for which its token was accepted last,
    or whose events come from the address, or else the address.
    """
    sender = (path.removeprefix(HOOKS), address) if path.startswith(HOOKS) else token
    return address if sender is None else _workspaces.get(sender, address)


_SESSION = re.compile(rb"(?:^|;)\s*(?:__Host-)?auth_token=([^;]+)")


def token_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Returns the digest of a request's token, or of its session's cookie. None if it has neither."""
    given = dict(headers)
    if (bearer := given.get(b"authorization")) is not None:
        sent = bearer.strip().rpartition(b" ")[2]
    elif (cookie := _SESSION.search(given.get(b"cookie", b""))) is not None:
        sent = cookie[1]
    else:
        return None
    return hashlib.sha256(sent).digest()


# The key of the request's Holding in its ASGI scope.
HOLDING = "pipedai.holding"

MIB = 1024 * 1024
# One group may hold the budget divided by this number, which is a quarter, so that no client can use up all of it.
GROUPS = 4
# A request that holds no more than this is small. The last eighth of the budget, and of each group's quarter, is kept
# for small requests, so that they still find room when large requests have used up the rest.
SMALL_BYTES = 64 * 1024
_FOR_LARGE = 7 / 8


class MemoryBudget:
    """Counts the bytes that a process holds, in all and for each group of requests. The event loop counts bodies and
    answers, and threads count the objects that they parse from a body.
    """

    def __init__(self, mebibytes: int = 48) -> None:
        self.used = 0
        self._total = mebibytes * MIB
        self._group_total = self._total // GROUPS
        self._by_group: dict[Hashable, int] = {}
        self._lock = Lock()

    def has_room(self, group: Hashable, size: int, *, small: bool) -> bool:
        part = 1 if small else _FOR_LARGE
        return (
            self.used + size <= self._total * part
            and self._by_group.get(group, 0) + size <= self._group_total * part
        )

    def add(self, group: Hashable, size: int) -> None:
        """Count `size` bytes that the process holds from now on. A negative `size` counts bytes that it has freed."""
        with self._lock:
            self._add(group, size)

    def add_parsed(self, group: Hashable, size: int) -> bool:
        """Count the bytes of a parsed body. Return False if the process has no room. The group's share is no limit
        here, because a body that fills the share could otherwise never be parsed.
        """
        with self._lock:
            if self.used + size > self._total * _FOR_LARGE:
                return False
            self._add(group, size)
        return True

    def _add(self, group: Hashable, size: int) -> None:
        self.used += size
        held = self._by_group.get(group, 0) + size
        if held:
            self._by_group[group] = held
        else:
            self._by_group.pop(group, None)


class Holding:
    """The bytes of the memory budget that one request holds. Each part of the server calls `keep` before it works on
    the request, and `leave` afterwards. The last `leave` gives all bytes back.
    """

    __slots__ = ("_at_end", "_budget", "_keepers", "_parsed", "_size", "group", "is_read", "token")

    def __init__(
        self,
        budget: MemoryBudget,
        client: str,
        path: str = "",
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        self._budget = budget
        self.token = token_of(headers)
        # Whether the request changes nothing although it is no GET, so that a large answer may be refused.
        self.is_read = False
        # An IPv6 client counts by its /64 network, because one subscriber usually has all of it.
        address = client if ":" not in client else network_of(client)
        # The group whose share of the memory and of the threads the request takes.
        self.group = group_of(path, address, self.token)
        self._size = 0
        self._parsed = 0
        self._keepers = 1
        self._at_end: list[Callable[[], None]] = []

    def join(self, group: Hashable) -> None:
        """Counts the request's bytes for another group from now on."""
        if group != self.group:
            self._budget.add(self.group, -self._size)
            self._budget.add(group, self._size)
            self.group = group

    def has_room(self, size: int) -> bool:
        small = self._size + size <= SMALL_BYTES
        return self._budget.has_room(self.group, size, small=small)

    def take(self, size: int) -> None:
        if size:
            self._size += size
            self._budget.add(self.group, size)

    def take_parsed(self, size: int) -> bool:
        """Count the `size` bytes of memory that a parsed body takes. A body that is parsed again counts once. Return
        False if there is no room.
        """
        more = max(0, size - self._parsed)
        if size <= SMALL_BYTES or not more:
            return True
        if not self._budget.add_parsed(self.group, more):
            return False
        self._parsed += more
        self._size += more
        return True

    def give_back(self, size: int) -> None:
        self.take(-size)

    def give_all_back(self) -> None:
        self.give_back(self._size)

    def is_overdrawn(self) -> bool:
        """Whether the process or the request's group holds too many bytes, so that no new work should start."""
        return not self._budget.has_room(self.group, 0, small=True)

    def keep(self) -> None:
        self._keepers += 1

    def leave(self) -> None:
        self._keepers -= 1
        if self._keepers:
            return
        self.give_all_back()
        while self._at_end:
            self._at_end.pop()()

    def at_end(self, then: Callable[[], None]) -> None:
        self._at_end.append(then)


def room_for_answer(request: HttpRequest | Request, wanted: int) -> int:
    """Return how many bytes an answer may have: `wanted`, or SMALL_BYTES if memory is short. Endpoints with large
    answers ask this first. Under another server than ours the result is always `wanted`.
    """
    holding = _holding_of(request)
    return wanted if holding is None or holding.has_room(wanted) else SMALL_BYTES


def note_read(request: HttpRequest | Request) -> None:
    """Notes that the request changes nothing although it is no GET."""
    holding = _holding_of(request)
    if holding is not None:
        holding.is_read = True


def has_room_to_parse(request: HttpRequest | Request, size: int) -> bool:
    """Count `size` bytes for the request's parsed body, until the request is answered. Return False if there is no room
    for them. Under another server than ours nothing is counted.
    """
    holding = _holding_of(request)
    return holding is None or holding.take_parsed(size)


def _holding_of(request: HttpRequest | Request) -> Holding | None:
    holding: Holding | None = request.META.get("asgi.scope", {}).get(HOLDING)
    return holding


def overloaded(*, unread: bool) -> Refused:
    """Return the 503 for a request for which there is no memory. Nothing was done for the request."""
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Too many bytes are under way at this moment: send the request again in a second.",
        unread=unread,
        code=ErrorCode.OVERLOADED,
        retry_after=1,
    )


class RequestLimit:
    def __init__(self, most: int) -> None:
        self._most = most
        self._counts: Counter[Hashable] = Counter()
        self._lock = Lock()

    def admits(self, subject: Hashable, request: HttpRequest | Request) -> bool:
        """Counts the request as one of the subject's until it is answered or its client has left. Returns False, and
        does not count it, if the subject has reached the limit. Under another server than ours nothing is counted.
        """
        holding = _holding_of(request)
        if holding is None:
            return True
        with self._lock:
            if self._counts[subject] >= self._most:
                return False
            self._counts[subject] += 1
        holding.at_end(partial(self._leave, subject))
        return True

    def _leave(self, subject: Hashable) -> None:
        with self._lock:
            self._counts[subject] -= 1
            if not self._counts[subject]:
                del self._counts[subject]


# A refused client may go on sending for this many seconds, and at most LINGER_BYTES bytes. If we closed the connection
# while bytes are unread, the operating system would reset it and the client would lose the answer.
LINGER_SECONDS = 2.0
LINGER_BYTES = 16 * 1024 * 1024


async def read_body(
    headers: RawHeaders, receive: Receive, *, max_bytes: int, seconds: float, holding: Holding
) -> bytes:
    """Return the whole body, counted in `holding`. Raises Refused if it is too large, too late or malformed, or if
    there is no room, and ClientGone.
    """
    _refuse_by_headers(dict(headers), max_bytes)
    whole: bytes | bytearray = b""
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                more = message.get("more_body", False)
                if piece := message.get("body", b""):
                    if len(whole) + len(piece) > max_bytes:
                        raise _too_large(max_bytes, unread=more)
                    if not holding.has_room(len(piece)):
                        raise overloaded(unread=more)
                    holding.take(len(piece))
                    if not whole:
                        whole = piece
                    elif isinstance(whole, bytearray):
                        whole += piece
                    else:
                        whole = bytearray(whole) + piece
                if not more:
                    return bytes(whole)
    except TimeoutError:
        raise Refused(
            HTTPStatus.REQUEST_TIMEOUT,
            f"The body did not arrive within {seconds:g} seconds.",
            code=ErrorCode.REQUEST_TIMEOUT,
        ) from None


async def discard_body(receive: Receive) -> None:
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while size < LINGER_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


class Replay:
    """An ASGI `receive` that returns the whole body once. A second call returns when the client leaves."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    def __call__(self) -> Awaitable[Message]:
        if self._body is None:
            return self._receive()
        body, self._body = self._body, None
        return _whole(body)


async def whole_answer(endpoint: App, scope: Scope, body: bytes) -> list[Message]:
    """Return the messages of the endpoint's answer. The endpoint does not notice if the client leaves."""
    answer: list[Message] = []

    async def keep(message: Message) -> None:
        answer.append(message)

    await endpoint(scope, Replay(body, _nothing_more), keep)
    return answer


async def _nothing_more() -> Message:
    return {"type": "http.disconnect"}


async def _whole(body: bytes) -> Message:
    return {"type": "http.request", "body": body, "more_body": False}


def _refuse_by_headers(headers: dict[bytes, bytes], max_bytes: int) -> None:
    length = headers.get(b"content-length", b"0")
    # A length of more than 18 digits exceeds any limit, and int() refuses numbers that are much longer.
    if length.isdigit() and (len(length) > 18 or int(length) > max_bytes):
        raise _too_large(max_bytes, unread=True)
    # Only Transfer-Encoding is checked here. The API's code that reads the body checks Content-Encoding
    # (pipedai.api.parsers).
    codings = {
        coding.strip().lower() for coding in headers.get(b"transfer-encoding", b"").split(b",")
    }
    if not codings <= {b"", b"identity", b"chunked"}:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "The body must not be compressed.",
            code=ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        )


def _too_large(max_bytes: int, *, unread: bool) -> Refused:
    size = f"{max_bytes // 1024} KiB" if max_bytes % (1024 * 1024) else f"{max_bytes >> 20} MiB"
    sentence = f"The body must not be over {size}."
    return Refused(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, sentence, code=ErrorCode.BODY_TOO_LARGE, unread=unread
    )

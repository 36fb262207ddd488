"""The outermost ASGI application. It prepares every request, completes every answer, and writes the one log line of
each request.
"""

import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from typing import Any

from pipedai.api.error_codes import ErrorCode, code_of_status
from pipedai.api.errors import INTERNAL, error_body
from pipedai.ids import accept_or_make, current_request_id
from pipedai.logs import get_logger, log_line
from pipedai.server.memory_budget import (
    HOLDING,
    SMALL_BYTES,
    Holding,
    MemoryBudget,
    Replay,
    discard_body,
    overloaded,
    read_body,
)
from pipedai.server.request_scope import (
    API,
    CONSOLE,
    PROBES,
    App,
    ClientGone,
    Message,
    Network,
    RawHeaders,
    Receive,
    Refused,
    Scope,
    Send,
    clean_scope,
    complete_headers,
    header,
    is_api,
    is_console,
    resolve_client,
    say_body_length,
    without,
)

# The key of a dict in each request's ASGI scope. The application puts more fields of the request's log line into it.
LOG = "pipedai.log"

# The status that is logged when a client closes the connection before there is an answer. nginx uses the same number.
CLIENT_GONE = 499

_LONGEST_PATH = 300

# The routes of the probes. A route has no slash at its beginning.
_PROBES = frozenset(path.removeprefix("/") for path in PROBES)

# Functions that are called for every request with its method, its route (None if none matched), its status and its
# seconds.
observers: list[Callable[[str | None, str | None, int, float], None]] = []


def log_request(
    *,
    status: int,
    seconds: float,
    body_bytes: int,
    client: str,
    method: str | None = None,
    path: str = "",
    **more: Any,
) -> None:
    """`path` has no query, because that may be private. `method` is None if the request could not be parsed."""
    for observe in observers:
        observe(method, more.get("route"), status, seconds)
    said = {
        "method": method,
        "path": path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…",
        # A log in text form would show an HTTPStatus by its name, so this makes it a number.
        "status": int(status),
        "duration_ms": round(seconds * 1000, 1),
        "bytes": body_bytes,
        "client": client,
        **more,
    }
    level = _level(status, more)
    named = {name: value for name, value in said.items() if value is not None and value != ""}
    log_line("pipedai.access", level, "request", named)


def _level(status: int, said: dict[str, Any]) -> int:
    if status >= 500:
        return logging.ERROR
    # Successful probes, polls that returned no run, and calls that stored events of a run are frequent, so they are
    # logged at level DEBUG only.
    if status == 200 and (
        said.get("route") in _PROBES or said.get("runs") == 0 or "events" in said
    ):
        return logging.DEBUG
    return logging.INFO


def error_answer(
    sentence: str, *, code: ErrorCode, close: bool = False, **extra: str
) -> tuple[RawHeaders, bytes]:
    """`close` adds a header that says that the connection ends, because the rest of the request was not read."""
    body = json.dumps(error_body(sentence, code=code, **extra)).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if close:
        headers.append((b"connection", b"close"))
    return headers, body


def crash_answer(request_id: str, *, close: bool = False) -> tuple[RawHeaders, bytes]:
    return error_answer(INTERNAL, code=ErrorCode.INTERNAL_ERROR, close=close, requestId=request_id)


@cache
def _error_page(sentence: str) -> bytes:
    """Return the console's page for an error of the server itself, with this sentence."""
    # Only this page needs Django's templates, which take long to import.
    from pipedai.api.exceptions import problem_page

    return problem_page("This can't be done", sentence, f"{CONSOLE}/").encode()


def phrase(status: int) -> str:
    """Return a short phrase for an HTTP status, for use where there is no sentence of our own about the error."""
    try:
        # Python's phrase "Not Found" is written as "Not found", like the API's own sentences.
        return HTTPStatus(status).phrase.capitalize()
    except ValueError:
        return "Error"


# The connection copies what the client does not take at once, so it gets at most this many bytes of an answer at a
# time.
PIECE_BYTES = 64 * 1024


@dataclass(slots=True)
class Reply:
    """The ASGI `send` of one request. It adds our headers and Content-Length, drops bodies that HTTP forbids (HEAD,
    204, 304), and makes JSON of the API's errors and pages of the console's errors. Bytes that are not sent yet count
    against the memory budget. `status` and `body_bytes` record the sent answer.
    """

    _send: Send
    _holding: Holding
    method: str
    request_id: str
    production: bool
    _headers: RawHeaders = field(default_factory=list)
    _held: bytes | None = None
    # Until the request's path is known, its answer is treated as one of the API, whose errors are JSON.
    path: str = API
    # The answer's status, or 0 until the application has started its answer.
    status: int = 0
    body_bytes: int = 0
    started: bool = False
    complete: bool = False

    async def send(self, message: Message) -> None:
        if self.complete:
            return
        if message["type"] == "http.response.start":
            if self.started:
                raise RuntimeError("The answer has already started.")
            # If the application starts its answer twice before anything is sent, the second start counts, as in WSGI.
            self.status = message["status"]
            self._headers = [
                (bytes(name).lower(), bytes(value)) for name, value in message.get("headers", [])
            ]
        elif message["type"] == "http.response.body":
            await self._take_body(message.get("body", b""), more=message.get("more_body", False))

    async def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer of the server's own. Nothing of the application's answer must have been sent before."""
        self._held = None
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _take_body(self, chunk: bytes, *, more: bool) -> None:
        if not self.status:
            raise RuntimeError("The answer has no start.")
        if self.started:
            await self._pass_on(chunk, more=more)
        elif more and not self._held:
            # The chunk is held back until the next message tells whether it is the whole body.
            self._held = chunk
        else:
            await self._start(chunk, more=more)

    async def _start(self, chunk: bytes, *, more: bool) -> None:
        held, self._held = self._held or b"", None
        if is_api(self.path) and self.status >= 400 and not self._is_json():
            headers, held = error_answer(phrase(self.status), code=code_of_status(self.status))
            chunk, more = b"", False
            self._replace(headers)
        elif is_console(self.path) and self.status >= 400 and self._is_json() and not more:
            held, chunk = _error_page(json.loads(held + chunk)["error"]), b""
            self._replace([(b"content-type", b"text/html; charset=utf-8")])
        if not more:
            held, chunk = held + chunk, b""
            # A GET changed nothing, so we may still refuse it. Any other request may have changed something, so its
            # answer is sent even without room: a refusal would wrongly say that nothing was done.
            is_read = self.method == "GET" or self._holding.is_read
            if is_read and len(held) > SMALL_BYTES and not self._holding.has_room(len(held)):
                raise overloaded(unread=False)
            self._say_length(len(held))
        headers = complete_headers(
            self._headers,
            request_id=self.request_id,
            path=self.path,
            production=self.production,
        )
        await self._send({"type": "http.response.start", "status": self.status, "headers": headers})
        self.started = True
        if held or not more:
            await self._pass_on(held, more=more)
        if chunk:
            await self._pass_on(chunk, more=more)

    async def _pass_on(self, chunk: bytes, *, more: bool) -> None:
        if self.method == "HEAD" or self.status in _WITHOUT_BODY:
            chunk = b""
        size = len(chunk)
        self.body_bytes += size
        self.complete = not more
        self._holding.take(size)
        try:
            sent = 0
            while size - sent > PIECE_BYTES:
                piece = chunk[sent : sent + PIECE_BYTES]
                sent += PIECE_BYTES
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            rest = chunk[sent:]
            await self._send({"type": "http.response.body", "body": rest, "more_body": more})
        finally:
            self._holding.give_back(size)

    def _replace(self, headers: RawHeaders) -> None:
        """Replaces the headers that describe the present body, such as its length, by those of another body."""
        self._headers = [*without(self._headers, *_ABOUT_THE_BODY), *headers]

    def _say_length(self, length: int) -> None:
        if self.status in _WITHOUT_BODY:
            self._replace([])
        elif not any(name == b"content-length" for name, _ in self._headers):
            self._headers.append((b"content-length", str(length).encode()))
        if is_api(self.path) and length == 0 and not self._is_json():
            self._headers = without(self._headers, b"content-type")

    def _is_json(self) -> bool:
        types = [value.lower() for name, value in self._headers if name == b"content-type"]
        return bool(types) and types[0].startswith(b"application/json")


_WITHOUT_BODY = frozenset({204, 304})
_ABOUT_THE_BODY = frozenset({b"content-type", b"content-length", b"transfer-encoding"})


log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int
    body_seconds: float = 30.0
    # The paths that take larger bodies, and the most bytes of these bodies.
    large_paths: re.Pattern[str] = re.compile("(?!)")  # It matches nothing.
    large_body_bytes: int = 0

    def body_bytes_at(self, path: str) -> int:
        return self.large_body_bytes if self.large_paths.fullmatch(path) else self.body_bytes


@dataclass(frozen=True)
class Outer:
    """Gives each request an id, checks its body's limits, counts its memory, adds headers, answers crashes and writes
    the access log. The application gets the whole body in one piece.
    """

    app: App
    limits: Limits
    trusted_proxies: Sequence[Network] = ()
    production: bool = False
    budget: MemoryBudget = field(default_factory=MemoryBudget)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = accept_or_make(header(scope["headers"], b"x-request-id"))
        client = resolve_client(scope, self.trusted_proxies)
        holding = scope[HOLDING] = Holding(self.budget, client, scope["path"], scope["headers"])
        reply = Reply(
            send,
            holding,
            method=scope["method"],
            request_id=request_id,
            production=self.production,
        )
        said: dict[str, Any] = {"path": scope["path"]}
        scope[LOG] = said
        token = current_request_id.set(request_id)
        try:
            await self._serve(scope, client, receive, reply, holding)
        finally:
            holding.leave()
            log_request(
                method=scope["method"],
                status=reply.status if reply.started else CLIENT_GONE,
                seconds=time.perf_counter() - began,
                body_bytes=reply.body_bytes,
                client=client,
                **said,
            )
            current_request_id.reset(token)

    async def _serve(
        self, scope: Scope, client: str, receive: Receive, reply: Reply, holding: Holding
    ) -> None:
        try:
            clean_scope(scope, client=client, trusted_proxies=self.trusted_proxies)
            reply.path = scope["path"]
            scope[LOG]["path"] = scope["path"]
            body = await read_body(
                scope["headers"],
                receive,
                max_bytes=self.limits.body_bytes_at(scope["path"]),
                seconds=self.limits.body_seconds,
                holding=holding,
            )
            say_body_length(scope, body)
            await self.app(scope, Replay(body, receive), reply.send)
            if not reply.started:
                raise RuntimeError("The application returned without an answer.")
        except Refused as refused:
            # The traceback's frames hold the part of the body that has arrived. Dropping it frees that memory before
            # the rest of the body is discarded, which may take a while.
            refused.__traceback__ = None
            scope[LOG]["refused"] = refused.sentence
            holding.give_all_back()
            headers, content = error_answer(
                refused.sentence, close=refused.unread, code=refused.code
            )
            if refused.retry_after is not None:
                headers.append((b"retry-after", str(refused.retry_after).encode()))
            await reply.answer(refused.status, headers, content)
            if refused.unread:
                await discard_body(receive)
        except ClientGone:
            pass
        except Exception:
            log.exception("request crashed")
            if not reply.started:
                # An error answer is sent only if no answer has started. If one has, the server sees that it is
                # incomplete and ends the connection.
                await reply.answer(500, *crash_answer(current_request_id.get()))

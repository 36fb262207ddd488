"""Serves one run's gateway in a thread: passes requests and answers on, and writes tool calls to the journal."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

import httpx

from pipedai_worker.disk.tool_calls import POSSIBLE, Call, ToolCalls
from pipedai_worker.gateway import faults, limits, messages
from pipedai_worker.gateway.faults import ServerFailed
from pipedai_worker.gateway.gate import Admitted, Gate, with_known_headers
from pipedai_worker.gateway.listener import Answer, Listener, Request
from pipedai_worker.gateway.look import Look, Looked
from pipedai_worker.gateway.messages import (
    Awaited,
    Effects,
    FirstEffect,
    ListOfTools,
    NotAllowed,
    Waiting,
)
from pipedai_worker.gateway.probe import probe
from pipedai_worker.gateway.upstream import (
    EVENTS,
    JSON,
    SESSION,
    VERSION,
    Ask,
    Credentials,
    Upstream,
    events_of,
    media_type,
    read_short,
    read_whole,
    session_in,
)
from pipedai_worker.running.outcome import Fault
from pipedai_worker.running.stopping import in_background, run_in_background

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
SECRET_BYTES = 32
# How long an exit waits for the gateway's thread. A slow look-up or disk can hold it; then it ends by itself later.
LEAVE_SECONDS = 5.0
# While the MCP server is asked for its tools, the worker looks this often whether the run has been stopped.
LOOK_SECONDS = 0.1


class Gateway:
    """A context manager that serves one run's MCP server on the loopback interface, at `url`."""

    def __init__(
        self,
        *,
        url: str,
        credentials: Credentials,
        ask: Ask,
        calls: ToolCalls,
        before_first_effect: Callable[[], None],
        gate: Gate | None = None,
    ) -> None:
        """Take the server's URL and the trigger's headers; `probe()` says if they can't be used. `ask` returns the
        present headers: it is called soon before the old ones expire, and when the server refuses them. A thread calls
        `before_first_effect` before the first call that may change something is sent. It returns once the API knows of
        the call, and raises an exception to prevent the call. It must end soon after the run has been stopped.
        """
        self.url = ""
        self._upstream = Upstream(url, credentials, ask)
        self._gate = gate
        self._effects = Effects(gate.learn if gate else None)
        self._calls = calls
        self._before_first_effect = before_first_effect
        self._base = f"/{secrets.token_urlsafe(SECRET_BYTES)}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._started: Future[None] = Future()

    def __enter__(self) -> Gateway:
        listening = socket.create_server((HOST, 0), backlog=128)
        self.url = f"http://{HOST}:{listening.getsockname()[1]}{self._path}"
        self._thread = run_in_background("gateway", lambda: self._run(listening))
        self._started.result()
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop is not None and self._main is not None:
            try:
                self._loop.call_soon_threadsafe(self._main.cancel)
            except RuntimeError:
                log.debug("the gateway had ended already")
        self._thread.join(LEAVE_SECONDS)

    def probe(
        self, stopped: Callable[[], bool] = lambda: False, look: Look | None = None
    ) -> Looked | Fault | None:
        """List the server's tools and take the `look`, until `stopped`. Return its result, None, or what is wrong."""
        if self._loop is None:
            raise RuntimeError("The gateway is not open.")
        probing = probe(self._upstream, self._effects, look)
        try:
            asked = asyncio.run_coroutine_threadsafe(probing, self._loop)
            while not wait([asked], LOOK_SECONDS).done:
                if stopped():
                    asked.cancel()
            return asked.result()
        except ServerFailed as failed:
            return failed.fault
        except CancelledError:
            return faults.infra("The run was stopped before its MCP server had answered.").fault
        except Exception as error:
            # Only the exception's type is logged, because its text may hold a secret header.
            log.error("the MCP server could not be asked: %s", type(error).__name__)
            probing.close()
            return faults.infra("The worker failed to ask the MCP server for its tools.").fault

    @property
    def _path(self) -> str:
        return f"{self._base}/mcp"

    def _run(self, listening: socket.socket) -> None:
        try:
            asyncio.run(self._serve(listening))
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            listening.close()
            if self._started.done():
                log.exception("the gateway ended")
            else:
                self._started.set_exception(error)

    async def _serve(self, listening: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        waiting = Waiting(self._calls, self._effects)
        self._forwarding = Forwarding(
            self._upstream,
            self._calls,
            self._effects,
            waiting,
            FirstEffect(self._before_first_effect),
            self._gate,
        )
        self._upstream.open()
        listener = Listener(listening, self._knows, self._answer)
        await listener.open()
        self._started.set_result(None)
        try:
            await asyncio.Event().wait()
        finally:
            await listener.close()
            await self._upstream.close()

    def _knows(self, target: str) -> bool:
        path, base = _path_in(target), f"{self._base}/".encode()
        return hmac.compare_digest(path[: len(base)], base)

    async def _answer(self, request: Request, answer: Answer) -> None:
        if self._gate is not None:
            request = with_known_headers(request)
        path = _path_in(request.target)
        try:
            if path == self._path.encode():
                await self._answer_main(request, answer)
            elif self._gate and path == f"{self._base}/hook".encode() and request.method == "POST":
                told = await asyncio.to_thread(self._gate.answer_hook, request.body)
                await answer.send(HTTPStatus.OK, json.dumps(told).encode())
            else:
                await answer.send(HTTPStatus.NOT_FOUND)
        except ServerFailed as failed:
            if answer.begun:
                # The connection is cut, so that the client notices that the answer is incomplete.
                raise ConnectionError from None
            problem = messages.error("null", messages.SERVER_ERROR, str(failed))
            await answer.send(HTTPStatus.BAD_GATEWAY, problem)

    async def _answer_main(self, request: Request, answer: Answer) -> None:
        ways = {
            "GET": self._forwarding.get,
            "POST": self._forwarding.post,
            "DELETE": self._forwarding.delete,
        }
        way = ways.get(request.method)
        if way is None:
            allow = {"Allow": ", ".join(ways)}
            await answer.send(HTTPStatus.METHOD_NOT_ALLOWED, headers=allow)
        else:
            await way(request, answer)


def _path_in(target: str) -> bytes:
    return target.partition("?")[0].encode()


_VERSION = re.compile(r"[0-9A-Za-z.\-]{1,32}")
_SECONDS = re.compile(r"[0-9]{1,9}")
# The statuses of an answer without content. The client gets 200 instead, as the server may have sent some all the same.
_WITHOUT_CONTENT = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT})
NO_ANSWER = "The MCP server ended its answer before the call was answered."


@dataclass(frozen=True)
class Posted:
    """What the gateway remembers of a POST. `session` with one of `ids` names a request that waits for an answer."""

    session: str
    ids: list[str] = field(default_factory=list)
    is_batch: bool = False
    # True if one of the messages is `initialize`.
    begins: bool = False
    may_take_long: bool = True


@dataclass(frozen=True)
class Forwarding:
    """Forwards the requests that one gateway gets to the run's MCP server."""

    _upstream: Upstream
    _calls: ToolCalls
    _effects: Effects
    _waiting: Waiting
    _first_effect: FirstEffect
    # None if no call of the run needs an approval.
    _gate: Gate | None

    async def post(self, request: Request, answer: Answer) -> None:
        try:
            read = messages.read_outlines if self._gate is None else messages.read_posted
            posted = await messages.read_apart(request.body, read)
        except ValueError:
            problem = messages.error("null", messages.PARSE_ERROR, "This is no JSON-RPC message.")
            await answer.send(HTTPStatus.BAD_REQUEST, problem)
            return
        session = request.header(SESSION) or ""
        found = [messages.request_id(message) for message in posted]
        post = Posted(
            session,
            [one for one in found if one is not None],
            is_batch=request.body.lstrip()[:1] == b"[",
            begins=any(each.get("method") == messages.INITIALIZE for each in posted),
            may_take_long=not all(map(messages.is_quick, posted)),
        )
        if post.ids:
            answer.client.expect()
        try:
            admitted = None
            if self._gate is not None:
                admitted = await asyncio.to_thread(self._gate.admit, posted, request)
            self._waiting.ask(post.ids)
            await self._announce(post, posted, admitted)
            body = admitted.body if admitted else request.body
            seconds = None if post.may_take_long else limits.ANSWER_SECONDS
            async with self._upstream.send(
                "POST", request.headers, body, seconds=seconds
            ) as response:
                await self._answer_post(post, response, answer)
        except (NotAllowed, ServerFailed) as failed:
            if not failed.unanswered:
                self._waiting.fail(session, post.ids)
            await self._fail(post, str(failed), answer)

    async def _announce(
        self, post: Posted, posted: list[dict[str, Any]], admitted: Admitted | None
    ) -> None:
        """Write tool calls to the journal, and wait for what must come before them. Raises NotAllowed."""
        may_change = False
        begun: list[Call] = []
        for message in posted:
            id_as_json = messages.request_id(message)
            tool = messages.tool_of(message)
            awaited: Awaited | None = None
            if message.get("method") == messages.TOOLS_LIST:
                awaited = ListOfTools()
            if tool is not None:
                effect = self._effects.of(tool)
                may_change |= effect == POSSIBLE
                awaited = await self._begin(tool, effect, messages.call_id_of(message))
                begun.append(awaited)
            if awaited is not None and id_as_json is not None:
                self._waiting.expect(post.session, id_as_json, awaited)
        if may_change:
            await self._first_effect.allowed()
        if self._gate is not None and admitted is not None and admitted.approval_id is not None:
            # The call is in the journal by now, so a crash from here on leaves it there as one of unknown outcome.
            await in_background("gateway spend", partial(self._gate.spend, admitted.approval_id))
        for call in begun:
            call.started = time.monotonic()

    async def _begin(self, tool: str, effect: str, call_id: str | None) -> Call:
        try:
            return await asyncio.to_thread(self._calls.begin, tool, effect, call_id)
        except OSError:
            raise NotAllowed(
                "The worker could not write this call down, so it was not sent."
            ) from None

    async def _answer_post(self, post: Posted, response: httpx.Response, answer: Answer) -> None:
        headers = self._headers(response)
        kind = media_type(response)
        status = _passed_on(response.status_code)
        if not 200 <= response.status_code < 300:
            self._waiting.fail(post.session, post.ids)
            await self._pass_refusal(response, answer, post)
        elif kind == EVENTS:
            await answer.begin_events(status, headers)
            await self._pass_events(post, response, answer)
        elif kind == JSON:
            body = await read_whole(response)
            heard = await self._waiting.hear_apart(post.session, body)
            if post.ids and not heard:
                raise faults.client("The MCP server's answer is none to this request.")
            await answer.send(status, body, headers=headers)
        else:
            body = await read_short(response)
            if body.strip() and post.ids and response.status_code != HTTPStatus.ACCEPTED:
                raise faults.client(
                    "The MCP server's answer is neither JSON nor a stream of events."
                )
            await answer.send(status, headers=headers)

    async def get(self, request: Request, answer: Answer) -> None:
        answer.client.expect()
        session = request.header(SESSION) or ""
        async with self._upstream.send("GET", request.headers, seconds=None) as response:
            if not 200 <= response.status_code < 300:
                await self._pass_refusal(response, answer)
            elif media_type(response) != EVENTS:
                raise faults.client("The MCP server's answer is no stream of events.")
            else:
                status = _passed_on(response.status_code)
                await answer.begin_events(status, self._headers(response))
                await self._pass_events(Posted(session), response, answer)

    async def delete(self, request: Request, answer: Answer) -> None:
        async with self._upstream.send("DELETE", request.headers) as response:
            if not 200 <= response.status_code < 300:
                await self._pass_refusal(response, answer)
            else:
                await answer.send(_passed_on(response.status_code))

    async def _pass_events(self, post: Posted, response: httpx.Response, answer: Answer) -> None:
        """Pass a stream of events on. If it ends before a request is answered, the client gets an error for that."""
        open_ids = dict.fromkeys(post.ids)
        resumable = False
        whole = False
        try:
            async for event in events_of(response):
                resumable |= event.has_id
                for heard in await self._waiting.hear_apart(post.session, event.data):
                    open_ids.pop(heard, None)
                await answer.write(event.encode())
            whole = True
        except ServerFailed:
            pass
        if open_ids and not resumable:
            for one in open_ids:
                problem = messages.error(one, messages.SERVER_ERROR, NO_ANSWER)
                await answer.write(b"event: message\ndata: " + problem + b"\n\n")
        elif not whole:
            # The connection is cut, so that the client notices that the stream is incomplete, and may resume it.
            raise ConnectionError
        await answer.end()

    async def _pass_refusal(
        self, response: httpx.Response, answer: Answer, post: Posted | None = None
    ) -> None:
        """Pass on an answer whose status is no success. Its body is passed on only if it is a JSON-RPC message."""
        status = response.status_code
        body, told = b"", False
        if media_type(response) == JSON:
            body = await read_short(response)
            with contextlib.suppress(ServerFailed):
                told = any("jsonrpc" in message for message in messages.read_answered(body))
        if not told:
            fault = faults.of_status(status, begins=post is not None and post.begins)
            body = messages.errors(
                post.ids if post and post.ids else ["null"],
                str(fault),
                batch=post is not None and post.is_batch,
            )
        await answer.send(_passed_on(status), body, headers=self._headers(response))

    async def _fail(self, post: Posted, sentence: str, answer: Answer) -> None:
        """Answer for the server with a JSON-RPC error if the client expects JSON-RPC, else with a 502."""
        if answer.begun:
            raise ConnectionError
        status = HTTPStatus.OK if post.ids else HTTPStatus.BAD_GATEWAY
        body = messages.errors(post.ids or ["null"], sentence, batch=post.is_batch)
        await answer.send(status, body)

    def _headers(self, response: httpx.Response) -> dict[str, str]:
        """Return the server's headers that the client needs, and no other, because those may repeat a secret."""
        found = {}
        session = session_in(response)
        if session is not None:
            if self._upstream.holds_secret(session):
                raise faults.client(
                    "The MCP server gave a session id that has an MCP header in it."
                )
            found["Mcp-Session-Id"] = session
        for name, pattern in ((VERSION, _VERSION), ("retry-after", _SECONDS)):
            value = response.headers.get(name)
            if value is None or not pattern.fullmatch(value):
                continue
            if not self._upstream.holds_secret(value):
                found[name] = value
        return found


def _passed_on(status: int) -> int:
    """Return the status for claude: no 401, after which it looks for a login, no redirect, and none without content."""
    if status in _WITHOUT_CONTENT:
        return HTTPStatus.OK
    if 200 <= status < 300:
        return status
    if status in faults.REFUSED_HEADERS:
        return HTTPStatus.FORBIDDEN
    if status < 400 or status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
        return HTTPStatus.BAD_GATEWAY
    return status

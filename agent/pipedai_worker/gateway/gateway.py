"""Runs the gateway of one run in a thread of its own, and passes each request to the code that answers it."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import socket
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from http import HTTPStatus

from pipedai_worker.disk.tool_calls import ToolCalls
from pipedai_worker.gateway import faults, messages
from pipedai_worker.gateway.faults import ServerFailed, ServerFault
from pipedai_worker.gateway.forwarding import Forwarding
from pipedai_worker.gateway.gate import Gate, with_known_headers
from pipedai_worker.gateway.listener import Answer, Listener, Request
from pipedai_worker.gateway.probe import probe
from pipedai_worker.gateway.upstream import Ask, Credentials, Upstream
from pipedai_worker.gateway.waiting import Effects, FirstEffect, Waiting
from pipedai_worker.logs import get_logger
from pipedai_worker.running.stopping import run_in_background

log = get_logger(__name__)

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
        headers that the trigger has by now: soon before they expire, and when the server refuses them. A thread calls
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

    def probe(self, stopped: Callable[[], bool] = lambda: False) -> ServerFault | None:
        """Initialise the server and list its tools, in 30 s at most. Return None, or why it can't be used. If the
        gateway is closed or `stopped` returns True meanwhile, return at once.
        """
        if self._loop is None:
            raise RuntimeError("The gateway is not open.")
        probing = probe(self._upstream, self._effects)
        try:
            asked = asyncio.run_coroutine_threadsafe(probing, self._loop)
            while not wait([asked], LOOK_SECONDS).done:
                if stopped():
                    asked.cancel()
            return asked.result()
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
                await self._answer_hook(self._gate, request, answer)
            else:
                await answer.send(HTTPStatus.NOT_FOUND)
        except ServerFailed as failed:
            if answer.begun:
                # The connection is cut, so that the client notices that the answer is incomplete.
                raise ConnectionError from None
            problem = messages.error("null", messages.SERVER_ERROR, str(failed))
            await answer.send(HTTPStatus.BAD_GATEWAY, problem)

    async def _answer_hook(self, gate: Gate, request: Request, answer: Answer) -> None:
        loop = asyncio.get_running_loop()
        told = await loop.run_in_executor(None, gate.answer_hook, request.body)
        await answer.send(HTTPStatus.OK, json.dumps(told).encode())

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

"""Serves a Messages API on the loopback interface: each run of the CLI is answered by a script of the test.

A script has a model of its own, which its trigger names: so a script is found by a request's model, whatever the
prompt is. Other requests of the same session, such as a sub-agent's with another model, belong to it too.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from .reply import Reply
from .steps import Step, say

_MODEL = "claude-sonnet-4-5-scripted-"
# Only these headers may hold the secret by which the CLI pays.
_PAYING = {"authorization", "x-api-key"}


@dataclass(frozen=True)
class Request:
    """One request that reached the API, whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    at: float

    @property
    def content(self) -> dict[str, Any]:
        """The body as JSON; empty if it is no JSON object."""
        try:
            content = json.loads(self.body)
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def text(self) -> str:
        """Everything in the request, to be searched, but for the header that pays."""
        head = [f"{self.method} {self.path}"]
        head += [f"{k}: {v}" for k, v in self.headers.items() if k.lower() not in _PAYING]
        return "\n".join([*head, self.body.decode(errors="replace")])

    @property
    def tools(self) -> list[str]:
        """The names of the tools that the model may call."""
        return [str(tool.get("name")) for tool in self.content.get("tools") or ()]


@dataclass
class Script:
    """What the API answers to one run, and what the run asked. After the last step the model says that it is done."""

    steps: tuple[Step, ...]
    model: str = field(default_factory=lambda: _MODEL + uuid4().hex[:12])
    requests: list[Request] = field(default_factory=list)
    # The step that comes next, and how many requests it has answered.
    _place: int = 0
    _answered: int = 0

    def next_step(self, request: Request) -> Step:
        """Note a request, and return the step that answers it."""
        self.requests.append(request)
        if self._place == len(self.steps):
            return say("done")
        step = self.steps[self._place]
        self._answered += 1
        if self._answered == step.times:
            self._place, self._answered = self._place + 1, 0
        return step

    @property
    def text(self) -> str:
        """Everything that the run sent, to be searched."""
        return "\n".join(request.text for request in self.requests)


class MessagesApi:
    """Finds the script of each request, and keeps all requests."""

    def __init__(
        self, port: int, otherwise: Callable[[Request], Step | None] = lambda _: None
    ) -> None:
        """`otherwise` answers requests for messages that belong to no script."""
        self.url = f"http://127.0.0.1:{port}"
        self.requests: list[Request] = []
        # Requests for messages that belong to no script, and that `otherwise` does not answer.
        self.unexpected: list[Request] = []
        self.ended = threading.Event()
        self._otherwise = otherwise
        self._by_model: dict[str, Script] = {}
        self._by_session: dict[str, Script] = {}
        self._changing = threading.Lock()

    def script(self, *steps: Step) -> Script:
        """Make a script. A trigger with its `model` gets these answers."""
        script = Script(steps)
        with self._changing:
            self._by_model[script.model] = script
        return script

    def leaked(self, *secrets: str, but_of: Script | None = None) -> list[str]:
        """Return those of the secrets that some request held, in whatever spelling, but for one script's requests."""
        # The module needs Django, without which `serve.py` runs.
        from testing.probes.planted import Planted

        known = Planted()
        for secret in secrets:
            known.add(secret)
        with self._changing:
            own = {id(request) for request in but_of.requests} if but_of else set()
            texts = [request.text for request in self.requests if id(request) not in own]
        return sorted({found for text in texts for found in known.found_in(text)})

    def take(self, request: Request) -> Step | None:
        """Note a request, and return the step that answers it; None if it asks for no message of a script."""
        with self._changing:
            self.requests.append(request)
            if request.method != "POST" or request.path.partition("?")[0] != "/v1/messages":
                return None
            script = self._script_of(request.content)
            step = script.next_step(request) if script else self._otherwise(request)
            if step is None:
                self.unexpected.append(request)
            return step

    def _script_of(self, content: Mapping[str, Any]) -> Script | None:
        script = self._by_model.get(str(content.get("model")))
        # The CLI names its session there.
        session = (content.get("metadata") or {}).get("user_id")
        if session is None:
            return script
        if script is not None:
            self._by_session[session] = script
        return self._by_session.get(session)


@contextmanager
def messages_api(
    listener: socket.socket, otherwise: Callable[[Request], Step | None] = lambda _: None
) -> Iterator[MessagesApi]:
    """Serve the API on this listening socket for the time of the block."""
    api = MessagesApi(listener.getsockname()[1], otherwise)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = Request(
                self.command, self.path, dict(self.headers.items()), body, time.monotonic()
            )
            step, reply = api.take(request), Reply(self, request.content)
            if step is not None:
                step.play(reply, ended=api.ended)
            elif request.method == "HEAD":
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif request.path.startswith("/v1/messages/count_tokens"):
                reply.json(200, {"input_tokens": len(body) // 4})
            else:
                reply.error(404)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with _Server(listener, Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield api
        finally:
            api.ended.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    """A server on a socket that listens already."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener

    def handle_error(self, *_: object) -> None:
        """Say nothing: a CLI that is stopped hangs up in the middle."""

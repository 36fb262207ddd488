"""The outermost ASGI application, which does what every request needs."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipedai.client_address import Network
from pipedai.ids import accept_or_make, current_request_id
from pipedai.logs import get_logger
from pipedai.server.access_log import CLIENT_GONE, LOG, log_request
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.server.reply import Reply, crash_answer, error_answer
from pipedai.server.request_body import Replay, discard_body, read_body
from pipedai.server.request_scope import (
    App,
    ClientGone,
    Receive,
    Refused,
    Scope,
    Send,
    clean_scope,
    header,
    resolve_client,
    say_body_length,
)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Limits:
    body_bytes: int
    body_seconds: float = 30.0
    # The paths that take larger bodies, and how large.
    large_paths: re.Pattern[str] = re.compile("(?!)")  # It matches nothing.
    large_body_bytes: int = 0

    def body_bytes_at(self, path: str) -> int:
        return self.large_body_bytes if self.large_paths.fullmatch(path) else self.body_bytes


class Outer:
    """Gives each request an id, checks its body's limits, counts its memory, adds headers, answers crashes and writes
    the access log. The application gets the whole body in one piece.
    """

    def __init__(
        self,
        app: App,
        *,
        limits: Limits,
        trusted_proxies: Sequence[Network] = (),
        production: bool = False,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._app = app
        self._budget = budget or MemoryBudget()
        self._limits = limits
        self._trusted_proxies = trusted_proxies
        self._production = production

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = accept_or_make(header(scope["headers"], b"x-request-id"))
        client = resolve_client(scope, self._trusted_proxies)
        holding = scope[HOLDING] = Holding(self._budget, client, scope["path"])
        reply = Reply(
            send,
            holding,
            method=scope["method"],
            request_id=request_id,
            production=self._production,
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
            clean_scope(scope, client=client, trusted_proxies=self._trusted_proxies)
            reply.path = scope["path"]
            scope[LOG]["path"] = scope["path"]
            body = await read_body(
                scope["headers"],
                receive,
                max_bytes=self._limits.body_bytes_at(scope["path"]),
                seconds=self._limits.body_seconds,
                holding=holding,
            )
            say_body_length(scope, body)
            await self._app(scope, Replay(body, receive), reply.send)
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

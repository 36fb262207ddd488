"""Finds for each answer of the server the call that waits for it, on whichever stream the answer comes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import partial
from typing import Any, Union

from pipedai_worker.gateway import messages
from pipedai_worker.gateway.effects import Effects
from pipedai_worker.gateway.limits import MOST_WAITING
from pipedai_worker.logs import get_logger
from pipedai_worker.tool_calls import ERROR, OK, Call, ToolCalls

log = get_logger(__name__)


class ListOfTools:
    """Waits for the answer to a `tools/list` request, as a Call waits for the answer to a tool call."""


Awaited = Union[Call, ListOfTools]


class Waiting:
    """What waits for an answer, by session and by the request's id as JSON. Answers to tool calls go to the journal."""

    def __init__(self, calls: ToolCalls, effects: Effects) -> None:
        self._calls = calls
        self._effects = effects
        self._awaited: OrderedDict[tuple[str, str], Awaited] = OrderedDict()
        self._lock = threading.Lock()

    def expect(self, session: str, id_as_json: str, awaited: Awaited) -> None:
        """Remember what waits for the answer to the request with this id. The newest request with an id counts."""
        with self._lock:
            self._awaited.pop((session, id_as_json), None)
            self._awaited[session, id_as_json] = awaited
            while len(self._awaited) > MOST_WAITING:
                self._awaited.popitem(last=False)

    async def hear_apart(self, session: str, data: bytes) -> set[str]:
        """Do what `hear` does, apart from the event loop if the message is large."""
        return await messages.read_apart(data, partial(self.hear, session))

    def hear(self, session: str, data: bytes) -> set[str]:
        """Take a message or a batch that the server sent in a session. Return the ids of the requests it answers.

        Raises ServerFailed if it has too many values.
        """
        heard = set()
        for message in messages.read_answered(data):
            found = messages.answer_id(message)
            if found is None:
                continue
            heard.add(found)
            with self._lock:
                awaited = self._awaited.pop((session, found), None)
            if isinstance(awaited, Call):
                self.end(awaited, ERROR if messages.is_error(message) else OK)
            elif awaited is not None:
                self._effects.learn(message.get("result"))
        return heard

    def fail(self, session: str, ids: list[str]) -> None:
        """End the calls of these requests as failed, because the server has refused them or never got them."""
        for one in ids:
            with self._lock:
                awaited = self._awaited.pop((session, one), None)
            if isinstance(awaited, Call):
                self.end(awaited, ERROR)

    def end(self, call: Call, outcome: str) -> None:
        """Write down how a tool call ended. If the disk fails, the call counts as one that got no answer."""
        try:
            self._calls.end(call, outcome)
        except OSError as error:
            log.error("the end of a tool call can't be written down: %s", error.strerror)


def awaited_by(message: dict[str, Any]) -> ListOfTools | None:
    """Return a ListOfTools if the message asks for the list of tools, because its answer has to be read; else None."""
    return ListOfTools() if message.get("method") == messages.TOOLS_LIST else None

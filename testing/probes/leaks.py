"""Searches for secrets in what tests leave behind: answers, log lines, tables and log files."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipedai.api import tokens
from testing.probes.planted import Planted, plant_body, planted
from testing.probes.tables import contents_as_text

# A text in the form of a token. pipedai.api.tokens tells whether it is one of ours.
_TOKEN = re.compile(r"[a-z]{3}_[0-9A-Za-z]{49}")
_SESSION = re.compile(r"eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{20,}")
# The URLs that mint tokens: their answers may contain one, once.
_MINTING = re.compile(
    r"/api/v1/(?:workers/register|enrollments/(?:redeem|key)|environments/[0-9a-f-]+/(?:api-keys|enrollments|invitations)"
    r"|workspaces/[0-9a-f-]+/workers/registration-token)"
)
# The only URLs whose answers may contain MCP headers, or the way to an authorization server.
_HANDING_OUT = re.compile(
    r"/api/v1/(?:workers/[0-9a-f-]+/(?:poll|claim-next|runs/[0-9a-f-]+/credentials)"
    r"|connections/[0-9a-f-]+/authorize)"
)


def tokens_in(text: str) -> list[str]:
    """Returns the tokens with a correct checksum and the session cookies in a text."""
    found = [token for token in _TOKEN.findall(text) if tokens.prefix_of(token)]
    return [*found, *_SESSION.findall(text)]


def leaks_in(where: str, text: str, known: Planted) -> list[str]:
    """Returns a message about the secrets in a text, or an empty list if there are none."""
    found = [*tokens_in(text), *known.found_in(text)]
    if not found:
        return []
    at = max(0, text.find(found[0]) - 200)
    return [f"{where}: {found} in {text[at : at + 500]}"]


class Watch(logging.Handler):
    """Notes each place where it finds a secret: a token, a session cookie, or a secret planted while it watches."""

    def __init__(self, known: Planted) -> None:
        super().__init__()
        self.leaks: list[str] = []
        # Whether the tables are to be searched though the test has planted nothing of its own.
        self.is_thorough = False
        # The test's directory for files; None until it is known.
        self.directory: Path | None = None
        self._known = known
        self._typed: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Searches a log line as it is printed."""
        if self.formatter is not None:
            self.look_at("log line", self.format(record))

    def look_at(self, where: str, text: str) -> None:
        """Searches any text."""
        self.leaks += leaks_in(where, text, self._known)

    def look_at_answer(self, path: str, sent: str, answer: str) -> None:
        """Searches an answer of the API. A token that the caller itself sent, as a name for example, may be in it."""
        told = [token for token in tokens_in(answer) if token not in sent]
        if _MINTING.fullmatch(path):
            told = []
        if not _HANDING_OUT.fullmatch(path):
            told += self._known.found_in(answer)
        if told:
            self.leaks.append(f"answer of {path}: {told} in {answer[:500]}")

    def typed(self, *tokens: str) -> None:
        """Lets tables contain these tokens, because a user typed them into a field for free text."""
        self._typed += tokens

    @property
    def has_planted(self) -> bool:
        """Whether the test has planted a secret of its own, besides those of the cast."""
        return self._known.has_own

    @property
    def searches_tables(self) -> bool:
        """Whether the tables are to be searched before what the test did is undone or dropped."""
        return self.is_thorough or self.has_planted

    def look_at_tables(self) -> None:
        """Searches every row of every table that the test's connection sees."""
        for table, text in contents_as_text().items():
            for token in self._typed:
                text = text.replace(token, "")
            self.look_at(f"table {table}", text)

    def look_at_log_files(self) -> None:
        """Searches every log file in the test's directory, which the processes that the test started wrote."""
        for path in self.directory.rglob("*.log") if self.directory else ():
            if path.is_file():
                self.look_at(str(path), path.read_text(errors="replace"))


_watches: list[Watch] = []


def answered(path: str, sent: str, answer: str) -> None:
    """Passes an answer to a test's client, and what the client had sent, to all watches."""
    for watch in _watches:
        watch.look_at_answer(path, sent, answer)


def look_before_undoing() -> None:
    """Searches the tables before a test undoes what it did to them, as they are searched at its end."""
    for watch in _watches:
        if watch.searches_tables:
            watch.look_at_tables()


@contextmanager
def hearing() -> Iterator[None]:
    """Searches the answers that httpx gets from a served API too, for the time of the block."""
    send = httpx.Client.send

    def heard_send(client: httpx.Client, request: httpx.Request, **rest: Any) -> httpx.Response:
        if request.url.path.startswith("/api/v1/"):
            plant_body(request.read())  # Another process will seal it.
        response = send(client, request, **rest)
        if request.url.path.startswith("/api/v1/") and not rest.get("stream"):
            headers = [
                f"{name}: {value}"
                for name, value in response.headers.multi_items()
                if name != "set-cookie"
            ]
            sent = request.read().decode(errors="replace")
            answered(request.url.path, sent, "\n".join([*headers, response.text]))
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(httpx.Client, "send", heard_send)
        yield


@contextmanager
def watching() -> Iterator[Watch]:
    """Watches for secrets for the time of the block."""
    root = logging.getLogger()
    ours = next((h for h in root.handlers if type(h).__module__ == "pipedai.logs"), None)
    with planted() as known:
        watch = Watch(known)
        watch.setFormatter(ours.formatter if ours else None)
        root.addHandler(watch)
        _watches.append(watch)
        try:
            yield watch
        finally:
            _watches.remove(watch)
            root.removeHandler(watch)

"""Checks that every error answer of a test has a `code` of API.md's table, and notes which codes the tests bring about.

The process that collects the whole suite's results then names the codes that no test brought about.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from django.test import Client

from pipedai.api.error_codes import ErrorCode
from pipedai.env import BASE_DIR

# The key under which a process of pytest-xdist hands the codes that its tests brought about to the main process.
HANDED_OVER = "error_codes"
# Headers of every answer of the service.
_OURS = ("X-Request-Id", "Content-Security-Policy")


def statuses_by_code() -> dict[str, set[int]]:
    """Returns the HTTP statuses of each code, from the table in API.md's section on errors."""
    text = (BASE_DIR / "API.md").read_text()
    errors = text.partition("### Errors")[2].partition("\n### ")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([\d, ]+) \|", errors, re.MULTILINE)
    return {code: {int(status) for status in statuses.split(",")} for code, statuses in rows}


class ErrorCodes:
    """The codes that the tests of this process brought about, and what is wrong with error answers."""

    def __init__(self, listed: Mapping[str, set[int]]) -> None:
        self._listed = listed
        self.seen: set[str] = set()
        self.faults: list[str] = []

    def look_at(
        self, path: str, status: int, headers: Mapping[str, str], body: bytes | str
    ) -> None:
        """Notes the code of an error answer, or what is wrong with the answer. Pages and successes are ignored."""
        is_json = headers.get("content-type", "").startswith("application/json")
        if status < 400 or not (is_json or path.startswith("/api/v1/")):
            return
        try:
            code = json.loads(body)["code"]
        except (ValueError, TypeError, KeyError):
            code = None
        if status in self._listed.get(code, ()):
            self.seen.add(code)
        else:
            self.faults.append(f"{path}: {status} with the code {code} in {body[:300]!r}")

    def faults_since_last(self) -> list[str]:
        """Returns what was wrong since this was last asked."""
        faults, self.faults = self.faults, []
        return faults

    def missing(self) -> list[str]:
        """Returns the codes of the registry that no test has brought about."""
        return sorted(set(ErrorCode) - self.seen)


CODES = ErrorCodes(statuses_by_code())


@contextmanager
def hearing_errors(codes: ErrorCodes = CODES) -> Iterator[None]:
    """Looks at the error answers that test clients and httpx get from the API, for the time of the block.

    httpx also talks to servers that tests make up, whose answers lack the service's headers and are ignored.
    """
    request, send = Client.request, httpx.Client.send

    def heard_request(client: Client, **environ: Any) -> Any:
        response = request(client, **environ)
        if environ.get("REQUEST_METHOD") != "HEAD" and not response.streaming:
            path = str(environ.get("PATH_INFO", ""))
            codes.look_at(path, response.status_code, response.headers, response.content)
        return response

    def heard_send(client: httpx.Client, request: httpx.Request, **rest: Any) -> httpx.Response:
        response = send(client, request, **rest)
        ours = all(name in response.headers for name in _OURS)
        if ours and request.method != "HEAD" and response.is_error:
            path = request.url.path
            codes.look_at(path, response.status_code, response.headers, response.read())
            if rest.get("stream"):
                # The caller reads the body anew.
                response.stream = httpx.ByteStream(response.content)
                response.is_stream_consumed = response.is_closed = False
        return response

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Client, "request", heard_request)
        patch.setattr(httpx.Client, "send", heard_send)
        yield


def is_whole_suite(config: pytest.Config) -> bool:
    """Tells whether all tests are selected, which is when neither paths nor any choice among tests is given."""
    option = config.option
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not any(
        getattr(option, name, None)
        for name in (
            "keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "failedfirst",
            "stepwise", "collectonly", "maxfail",
        )
    )  # fmt: skip

"""Holds the headers of one run's MCP server, which may change while the run lives, and what of the run is secret."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus

from pipedai_worker.api.answers import NotOurApi, Refused
from pipedai_worker.api.client import Api
from pipedai_worker.gateway import Credentials
from pipedai_worker.identity.paying import EVERY_CREDENTIAL
from pipedai_worker.logs import known_secrets
from pipedai_worker.polling.assigned import AssignedRun, parse_headers
from pipedai_worker.redact import Redactor

# How many of a run's headers, the latest, the worker still hides. Those before have expired long ago, and to look for
# each of a day's tokens of five minutes would cost ten seconds for a megabyte of output.
MOST_REMEMBERED = 20


class RunCredentials:
    """A context manager during which the worker's log hides the run's secrets. `redactor` hides them elsewhere: the
    run's headers, the worker's token, and what claude logs in with. No text with them may leave the worker.
    """

    def __init__(self, api: Api, run: AssignedRun) -> None:
        self._api = api
        self._run_id = run.id
        self._mcp_url = run.mcp_url
        # When the present headers expire, as the API says it.
        self._expires_at: object = run.headers_expire_at
        self.present = self._credentials(run.mcp_headers)
        self._headers = deque([run.mcp_headers], maxlen=MOST_REMEMBERED)
        self._others = [api.token, *(os.environ.get(name, "") for name in EVERY_CREDENTIAL)]
        self.redactor = Redactor(self._secrets())

    def __enter__(self) -> None:
        known_secrets.add(self._run_id, self._secrets())

    def __exit__(self, *_: object) -> None:
        known_secrets.remove(self._run_id)

    def ask(self, refused: bool = False) -> Credentials:
        """Return the headers that the run's trigger has by now, as secrets that are known already. `refused` tells the
        API that the server has refused the present ones. Raises ApiError.
        """
        answer = self._api.credentials(self._run_id, self._expires_at if refused else None)
        # The API can't always tell: after this worker's poll, another one may have been handed the run with a new URL.
        if answer.get("mcpUrl") != self._mcp_url:
            raise Refused("The run's trigger has another MCP URL by now.", HTTPStatus.CONFLICT)
        try:
            headers = parse_headers(answer["headers"])
        except (AttributeError, KeyError, TypeError, ValueError):
            raise NotOurApi("The answer to a request for credentials has no headers.") from None
        if headers != self._headers[-1]:
            self._headers.append(headers)
            self.redactor.hide(self._secrets())
            known_secrets.replace(self._run_id, self._secrets())
        self._expires_at = answer.get("expiresAt")
        self.present = self._credentials(headers)
        return self.present

    def _secrets(self) -> list[str]:
        return [*(value for each in self._headers for value in each.values()), *self._others]

    def _credentials(self, headers: Mapping[str, str]) -> Credentials:
        seconds = self._api.seconds_until(self._expires_at)
        return Credentials(headers, None if seconds is None else time.monotonic() + seconds)

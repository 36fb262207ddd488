"""Makes a word by which the API recognises workers that use the same account of claude, but not whose it is."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from pipedai_worker.api.answers import ApiError
from pipedai_worker.executors import traces
from pipedai_worker.executors.inputs import allowed
from pipedai_worker.identity.paying import CLAUDE_MAX, CREDENTIALS

# Somebody may log in with another account at any time, so the login is read again this often.
LOOK_SECONDS = 60.0
# If the API can't say to which environment the worker belongs, it is asked again after this time.
ASK_AGAIN_SECONDS = 600.0


class Account:
    """The account of claude that pays for this worker's runs. The poll's thread calls `word()`.

    `auth_mode` returns how claude is paid for. `ask_environment` asks the API for the environment's id, if the worker's
    configuration does not know it; it raises ApiError, and returns None if the API does not say.
    """

    def __init__(
        self,
        auth_mode: Callable[[], str],
        environment_id: str | None,
        ask_environment: Callable[[], str | None],
    ) -> None:
        self._auth_mode = auth_mode
        self._environment_id = environment_id
        self._ask_environment = ask_environment
        self._lock = threading.Lock()
        self._ask_at = self._look_at = 0.0
        self._word: str | None = None

    def word(self) -> str | None:
        """Return the account's word, of 64 characters, or None if the account or the environment is not known.

        It is the same on every machine of the environment that uses the account, and another one in every other
        environment. Nobody can tell the account from it.
        """
        with self._lock:
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + LOOK_SECONDS
                environment_id, identity = self._environment(now), account(self._auth_mode())
                known = environment_id is not None and identity is not None
                self._word = word(str(environment_id), str(identity)) if known else None
            return self._word

    def _environment(self, now: float) -> str | None:
        if self._environment_id is None and now >= self._ask_at:
            self._ask_at = now + ASK_AGAIN_SECONDS
            try:
                self._environment_id = self._ask_environment()
            except ApiError:
                self._ask_at = now
        return self._environment_id


def word(environment_id: str, identity: str) -> str:
    """Return the word for an account in an environment: an HMAC of the account under the environment's id."""
    return hmac.new(environment_id.encode(), identity.encode(), hashlib.sha256).hexdigest()


def account(auth_mode: str) -> str | None:
    """Return what tells claude's account from all others, or None if that is not known. It is a secret.

    It is the token or the key that claude gets from the environment, else the account that claude is logged in with.
    """
    for variable in CREDENTIALS[auth_mode]:
        if os.environ.get(variable):
            return f"{variable} {os.environ[variable]}"
    login = _login() if auth_mode == CLAUDE_MAX else {}
    account_id = login.get("accountUuid")
    if not isinstance(account_id, str) or not account_id:
        return None
    # A person can be a member of several organizations, which have usage limits of their own.
    return f"login {account_id} {login.get('organizationUuid')}"


def _login() -> dict[str, Any]:
    path = traces.state_file(allowed())
    try:
        content = json.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError, RecursionError):
        return {}
    login = content.get("oauthAccount") if isinstance(content, dict) else None
    return login if isinstance(login, dict) else {}

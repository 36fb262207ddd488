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
from pipedai_worker.executors.base import allowed
from pipedai_worker.identity.paying import CLAUDE_MAX, CREDENTIALS

# Somebody may log in with another account at any time, so the login is read again this often.
LOOK_SECONDS = 60.0
# If the API can't say to which environment the worker belongs, it is asked again after this time.
ASK_AGAIN_SECONDS = 600.0


class Account:
    """Claude's account. `auth_mode` returns how it is paid for. `ask_environment` asks the API for the environment's id
    if it is not known; it raises ApiError, and may return None.
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
        """Return the account's word of 64 characters, or None if it is not known. All machines of an environment make
        the same word, from which nobody can tell the account.
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
    """Return what tells claude's account from others, or None. It is a secret: a token, a key, or the login."""
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

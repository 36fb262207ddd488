"""Reads and writes the worker's registration, and decides how claude is paid for on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pipedai_worker.disk import durable

DEFAULT_PATH = Path("~/.pipedai/worker.json")


class ConfigError(Exception):
    """The worker's configuration file can't be used. The message is one sentence for the person who runs the worker."""


@dataclass(frozen=True)
class WorkerConfig:
    """One worker's registration. `api_url` has no `/api/v1` and no slash at its end."""

    worker_id: str
    worker_token: str = field(repr=False)
    api_url: str
    workspace_id: str
    max_concurrency: int | None = None
    # How claude, the program that this worker runs, is paid for, as the API said last; None if it has not said so yet.
    auth_mode: str | None = None
    # The environment that the worker belongs to; None if the registration did not tell.
    environment_id: str | None = None

    def save(self, path: Path) -> None:
        durable.private_directory(path.parent)
        content = {
            "workerId": self.worker_id,
            "workerToken": self.worker_token,
            "apiUrl": self.api_url,
            "workspaceId": self.workspace_id,
            "isPool": False,
            "authMode": self.auth_mode,
            "environmentId": self.environment_id,
        }
        known = {name: value for name, value in content.items() if value is not None}
        durable.write_json(path, known)

    @classmethod
    def load(cls, path: Path) -> WorkerConfig:
        """Read a registration from its file. Raises ConfigError, whose sentence says what to do about it."""
        try:
            content = durable.read_json_object(path)
        except FileNotFoundError:
            raise ConfigError(f"There is no {path}: register this worker first.") from None
        except OSError as error:
            raise ConfigError(f"{path} can't be read: {error.strerror}.") from None
        except ValueError:
            raise ConfigError(f"{path} is not a worker's configuration (JSON object).") from None
        if content.get("isPool"):
            raise ConfigError(f"{path} belongs to a pool worker, which this program is not.")
        maximum = content.get("maxConcurrency")
        if maximum is not None and (type(maximum) is not int or maximum < 1):
            raise ConfigError(f"maxConcurrency in {path} must be a whole number of 1 or more.")
        mode, environment = content.get("authMode"), content.get("environmentId")
        return cls(
            worker_id=_uuid(content, "workerId", path),
            worker_token=_text(content, "workerToken", path),
            api_url=_text(content, "apiUrl", path),
            workspace_id=str(content.get("workspaceId") or ""),
            max_concurrency=maximum,
            auth_mode=mode if mode in AUTH_MODES else None,
            environment_id=environment if isinstance(environment, str) else None,
        )


def remember_auth_mode(path: Path, auth_mode: str) -> None:
    """Write down how the API says that claude is paid for; other fields stay. If that fails, the log says so."""
    try:
        durable.write_json(path, {**durable.read_json_object(path), "authMode": auth_mode})
    except (OSError, ValueError) as error:
        log.warning("%s can't be written (%s): authMode is not kept", path, type(error).__name__)


def readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def state_directory(config_path: Path) -> Path:
    return config_path.with_name(f"{config_path.stem}.state")


def own_files(config_path: Path) -> list[Path]:
    """Return the files and directories in which the workers of this account keep tokens and runs."""
    found = [config_path, state_directory(config_path)]
    # Without a home directory there is no default path either.
    with contextlib.suppress(RuntimeError):
        found.append(DEFAULT_PATH.parent.expanduser())
    return found


def _text(content: dict[str, Any], key: str, path: Path) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{path} has no {key}: register this worker again.")
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"{key} in {path} is damaged: register this worker again.")
    return value


def _uuid(content: dict[str, Any], key: str, path: Path) -> str:
    try:
        return str(UUID(_text(content, key, path)))
    except ValueError:
        raise ConfigError(f"{key} in {path} is not a UUID: register this worker again.") from None


log = logging.getLogger(__name__)

CLAUDE_MAX, API_KEY = "claude_max", "api_key"
AUTH_MODES = (CLAUDE_MAX, API_KEY)
# The variables that claude gets for each way of paying. With a subscription it gets no API key,
# because claude would use the key without saying so.
CREDENTIALS = {
    CLAUDE_MAX: ("CLAUDE_CODE_OAUTH_TOKEN",),
    API_KEY: ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
}
EVERY_CREDENTIAL = tuple(name for names in CREDENTIALS.values() for name in names)


@dataclass
class Paying:
    """The present way of paying for claude: what the operator chose, else what the API says, else a subscription."""

    _chosen: str | None
    # What the API said last. `_remember` is called when that changes.
    _from_api: str | None = None
    _remember: Callable[[str], None] = lambda _: None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def mode(self) -> str:
        return self._chosen or self._from_api or CLAUDE_MAX

    @property
    def why(self) -> str:
        if self._chosen:
            return "by --auth-mode or AUTH_MODE"
        if self._from_api:
            return "as the API says"
        return "by default, until the API says"

    def learn(self, from_api: str | None) -> None:
        """Keep the way of paying that the API tells. None, or a way that this worker does not know, changes nothing."""
        if from_api not in AUTH_MODES:
            return
        with self._lock:
            if from_api == self._from_api:
                return
            before, self._from_api = self.mode, from_api
        self._remember(from_api)
        if self.mode != before:
            log.info("claude is paid for by %s from now on (%s)", self.mode, self.why)
            for complaint in self.complaints():
                log.warning("%s", complaint)
        elif self._chosen and self._chosen != from_api:
            log.warning(
                "the API says that this worker pays by %s, but %s holds (%s)",
                from_api,
                self.mode,
                self.why,
            )

    def complaints(self) -> list[str]:
        """Return a sentence on each credential that is set but kept from claude, and one if claude's own is missing."""
        mode = self.mode
        complaints = [
            f"{name} is kept from claude, which is paid for by {mode} ({self.why});"
            f" to use it: --auth-mode {other}"
            for other in AUTH_MODES
            if other != mode
            for name in CREDENTIALS[other]
            if os.environ.get(name)
        ]
        if mode == API_KEY and not any(os.environ.get(name) for name in CREDENTIALS[API_KEY]):
            complaints.append(
                f"claude is paid for by {mode} ({self.why}), but neither {' nor '.join(CREDENTIALS[API_KEY])}"
                " is set for the worker"
            )
        return complaints

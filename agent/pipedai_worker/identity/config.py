"""Keeps the worker's registration (its id, its token, the API's URL) in a JSON file that only its owner can read."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from pipedai_worker.disk import durable
from pipedai_worker.identity.paying import AUTH_MODES

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
        }
        if self.auth_mode is not None:
            content["authMode"] = self.auth_mode
        if self.environment_id is not None:
            content["environmentId"] = self.environment_id
        durable.write_json(path, content)

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
    """Write down how the API says that claude is paid for; other fields stay. Raises OSError, ValueError."""
    content = durable.read_json_object(path)
    durable.write_json(path, {**content, "authMode": auth_mode})


def readable_by_others(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o077)


def state_directory(config_path: Path) -> Path:
    return config_path.with_name(f"{config_path.stem}.state")


def own_files(config_path: Path) -> list[Path]:
    """Return the files and directories in which this worker, and others of this account, keep tokens and runs."""
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

"""Exchanges a `wrk_` token for this machine's own token, and writes that to the configuration file."""

from __future__ import annotations

import errno
import os
import platform
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipedai_worker import __version__
from pipedai_worker.api.answers import GaveUp, Unavailable, until_answered
from pipedai_worker.api.client import Api
from pipedai_worker.disk import durable
from pipedai_worker.identity.config import ConfigError, WorkerConfig
from pipedai_worker.identity.paying import AUTH_MODES, CLAUDE_MAX
from pipedai_worker.logs import get_logger

log = get_logger(__name__)

NAME_LENGTH = 255
# If the API does not answer for so long, its URL may be wrong, and a person has to look.
PATIENCE_SECONDS = 60.0


class NotRegistered(Exception):  # noqa: N818 - a state of knowledge
    """The API could not be asked within a minute, or its answer was lost. The text says what to do about it."""


@dataclass(frozen=True)
class Registration:
    """What the worker tells of itself when it registers. An empty hostname stands for this machine's own."""

    token: str = field(repr=False)
    hostname: str = ""
    label: str = ""
    auth_mode: str = CLAUDE_MAX
    max_concurrency: int = 1

    def body(self) -> dict[str, object]:
        body: dict[str, object] = {
            "token": self.token,
            "hostname": (self.hostname or socket.gethostname())[:NAME_LENGTH],
            "os": f"{platform.system()} {platform.release()}"[:NAME_LENGTH],
            "version": __version__,
            "authMode": self.auth_mode,
            "maxConcurrency": self.max_concurrency,
        }
        if self.label:
            body["label"] = self.label[:NAME_LENGTH]
        return body


def register(api: Api, registration: Registration, path: Path) -> WorkerConfig:
    """Register, and write the configuration. It tries again for a minute, but only while the token is certain to be
    unused. Raises ConfigError if the file can't be written, NotRegistered, and the API's errors.
    """
    _check_writable(path)
    gives_up_at = time.monotonic() + PATIENCE_SECONDS

    def wait(seconds: float) -> bool:
        if time.monotonic() + seconds > gives_up_at:
            return True
        time.sleep(seconds)
        return False

    def attempt() -> dict[str, object]:
        try:
            return api.register(registration.body())
        except Unavailable as error:
            if error.sent and error.retry_after is None:
                raise NotRegistered(
                    f"{error}. The token may be used up: if it is refused next, mint a new one."
                ) from None
            raise

    try:
        answer = until_answered(attempt, wait, again=Unavailable)
    except GaveUp as gave_up:
        raise NotRegistered(f"{gave_up}. The token was not used: try again later.") from None
    config = WorkerConfig(
        worker_id=str(answer["workerId"]),
        worker_token=str(answer["workerToken"]),
        api_url=api.url,
        workspace_id=str(answer["workspaceId"]),
        environment_id=str(answer["environmentId"]) if answer.get("environmentId") else None,
        auth_mode=mode
        if (mode := answer.get("authMode")) in AUTH_MODES
        else registration.auth_mode,
    )
    try:
        config.save(path)
    except OSError as error:
        raise ConfigError(
            f"This machine is registered as worker {config.worker_id}, but {path} can't be written:"
            f" {error.strerror}. The token is used up: mint a new one."
        ) from None
    if answer.get("approved") is False:
        log.warning(
            "worker %s waits for approval by an admin: until then it gets no run whose trigger has MCP headers",
            config.worker_id,
        )
    return config


def _check_writable(path: Path) -> None:
    """Check that `path` can be written before the token is sent, because the token can be used only once."""
    try:
        durable.try_writing(durable.private_directory(path.parent))
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}.") from None

"""Exchanges a `wrk_` token for this machine's own, and keeps that in the configuration file."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pipedai_worker import __version__, durable
from pipedai_worker.api import Api, Unavailable
from pipedai_worker.config import ConfigError, WorkerConfig
from pipedai_worker.logs import get_logger
from pipedai_worker.patience import until_answered

log = get_logger(__name__)

NAME_LENGTH = 255


class AnswerLost(Exception):  # noqa: N818 - a state of knowledge
    """The token may have been used up without us learning the result."""


@dataclass(frozen=True)
class Registration:
    """What to register as; an empty hostname is this machine's own."""

    token: str = field(repr=False)
    hostname: str = ""
    label: str = ""
    auth_mode: str = "claude_max"
    max_concurrency: int = 1

    def body(self) -> dict[str, object]:
        """The JSON object to send."""
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
    """Register, and write the configuration to `path`.

    Tries again only while it is sure that the token was not used. Raises ConfigError when the file
    can't be written (before anything is sent), AnswerLost, and the API's errors.
    """
    _check_writable(path)

    def attempt() -> dict[str, object]:
        try:
            return api.register(registration.body())
        except Unavailable as error:
            if error.sent and error.retry_after is None:
                raise AnswerLost(str(error)) from None
            raise

    answer = until_answered(attempt, _sleep, again=Unavailable)
    config = WorkerConfig(
        worker_id=str(answer["workerId"]),
        worker_token=str(answer["workerToken"]),
        api_url=api.url,
        workspace_id=str(answer["workspaceId"]),
    )
    config.save(path)
    log.info("registered as worker %s; its token is in %s", config.worker_id, path)
    return config


def _check_writable(path: Path) -> None:
    """The token can be used once: better to know first that there is a place for its result."""
    try:
        durable.private_directory(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent):
            pass
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}.") from None


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False

"""Finds the events of a run that a person wants to see: at the API, or on this machine."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol

from pipedai_worker import config as configuration
from pipedai_worker import exits
from pipedai_worker.answers import Refused, TokenRefused
from pipedai_worker.api import Api
from pipedai_worker.arguments import KEY_VARIABLE
from pipedai_worker.config import WorkerConfig
from pipedai_worker.events import following
from pipedai_worker.events.spool import SUFFIX
from pipedai_worker.exits import Exit
from pipedai_worker.journal import EVENTS, HELD


class Connect(Protocol):
    """Makes the client of the API at this URL, for a user's key."""

    def __call__(self, url: str, *, key: str) -> Api: ...


def events_of(options: argparse.Namespace, connect: Connect) -> Iterator[dict[str, Any]]:
    """Return the events that the command `logs` is to show. Raises Exit if there are none to be had, and ConfigError.

    They come from the API if there is a key for it, and else from the file that the worker keeps until it has sent
    them.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key.isascii() or not key.isprintable():
        raise Exit(exits.BAD_CONFIG, f"The key in {KEY_VARIABLE} is damaged.")
    if not key:
        return _on_disk(options)
    url = options.api_url or WorkerConfig.load(options.config).api_url
    return _at_the_api(connect(url, key=key), options)


def _at_the_api(api: Api, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    read = following.from_api if options.follow else following.listed
    try:
        with contextlib.closing(api):
            yield from read(api, options.run, options.after)
    except TokenRefused as refused:
        raise Exit(exits.DEAD_TOKEN, f"The key in {KEY_VARIABLE} was refused: {refused}") from None
    except Refused as refused:
        sentence = f"The API does not show the events of run {options.run}: {refused}"
        raise Exit(exits.ERROR, sentence) from None


def _on_disk(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    worker_id = WorkerConfig.load(options.config).worker_id
    state = configuration.state_directory(options.config) / worker_id

    def is_over() -> bool:
        return not options.follow or not (state / HELD / f"{options.run}.json").exists()

    try:
        yield from following.from_file(
            state / EVENTS / f"{options.run}{SUFFIX}", options.after, is_over
        )
    except FileNotFoundError:
        raise Exit(
            exits.ERROR,
            f"This machine has no events of run {options.run}. The API may have them: set"
            f" {KEY_VARIABLE} to a pwk_ key.",
        ) from None

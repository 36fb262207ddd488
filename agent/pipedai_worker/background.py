"""Starts threads that end with the process: they do not keep it alive when its main thread ends."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_in_background(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a new thread, which does not keep the process alive."""
    threading.Thread(target=work, name=name, daemon=True).start()

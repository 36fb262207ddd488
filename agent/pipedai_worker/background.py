"""Starts threads that do not keep the process alive when its main thread ends."""

from __future__ import annotations

import threading
from collections.abc import Callable


def run_in_background(name: str, work: Callable[[], None]) -> None:
    """Run `work` in a thread of its own, which ends with the process."""
    threading.Thread(target=work, name=name, daemon=True).start()

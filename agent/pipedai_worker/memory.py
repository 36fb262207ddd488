"""Keeps the worker's memory from growing over days, although every run starts and ends threads."""

from __future__ import annotations

import ctypes
import platform

# The number of the option M_ARENA_MAX of the C function mallopt, from glibc's malloc.h.
M_ARENA_MAX = -8


def share_one_arena() -> None:
    """Make all threads take their memory from one arena of glibc. Call this before any thread starts.

    By default glibc gives each thread a memory pool (arena) of its own. The unused parts of these pools added up to 13
    MiB in a day of three runs a minute, although the worker used no more memory. With another C library this does
    nothing.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)

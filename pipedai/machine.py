"""Derives settings from what this machine, container or service may use (docs/deploy.md)."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MIB = 1024 * 1024
# What hashing a password takes (SPEC §19): OWASP's first choice (see accounts.passwords).
HASH_MIB = 46


def passwords_at_once(*, processors: int, threads: int, memory_mib: int) -> int:
    """Returns how many passwords a web process hashes at once, from what it may use.

    More than there are processors would not be sooner done. Half of the threads are left for other requests, and three
    fifths of the memory for everything else.
    """
    return max(1, min(processors, threads // 2, memory_mib * 2 // 5 // HASH_MIB))


def memory_budget_mib(memory_mib: int) -> int:
    """Returns the memory budget of a web process: a fifth of the memory that it may use, from 24 to 256 MiB.

    One client address may use a quarter of it, and a quarter of 24 MiB still holds the longest answer to a poll.
    """
    return min(max(24, memory_mib // 5), 256)


def processors(groups: Path = _CGROUPS) -> int:
    """Returns how many processors' time this process may use: those that it may run on, or the quota of its cgroups."""
    on_linux = hasattr(os, "sched_getaffinity")
    most: float = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    for quota in _limits(groups, "cpu.max"):
        allowed, _, period = quota.partition(" ")
        if allowed.isdigit() and period.isdigit():
            most = min(most, int(allowed) / int(period))
    return max(1, math.ceil(most))


def memory_mib(groups: Path = _CGROUPS) -> int:
    """Returns how many MiB of memory this process may use: the machine's, or the limit of its cgroups."""
    limits = [*_limits(groups, "memory.max"), *_read(groups / "memory" / "memory.limit_in_bytes")]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())]) // _MIB


def _limits(groups: Path, name: str) -> Iterator[str]:
    """Yields a limit of this process's cgroup (version 2) and of all those around it. A container sees its own as the
    outermost one.
    """
    ours = [line for line in _read(Path("/proc/self/cgroup")) if line.startswith("0::/")]
    group = Path(ours[0].removeprefix("0::/") if ours else "")
    for each in {group, *group.parents}:
        yield from _read(groups / each / name)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []  # There is no such limit here.

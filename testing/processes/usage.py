"""Reads what processes have used: CPU time and memory."""

import psutil


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds, user and system, of a process and of all its descendants, even those that have ended."""
    root = psutil.Process(pid)
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            # A process's figures include those of the children that it has waited for.
            seconds += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return seconds


def children_rss(pid: int) -> list[int]:
    """Return the resident memory, in bytes, of each child of a process."""
    return [child.memory_info().rss for child in psutil.Process(pid).children()]

"""Reads what processes have used: CPU time and memory."""

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU seconds used so far, by the web server and by PostgreSQL."""

    web: float
    postgres: float

    def since(self, earlier: "Cpu") -> "Cpu":
        """What was used between the two."""
        return Cpu(self.web - earlier.web, self.postgres - earlier.postgres)


def cpu_seconds(pid: int) -> float:
    """CPU time, user and system, of a process and all its descendants, those that have ended too."""
    root = psutil.Process(pid)
    seconds = 0.0
    for process in (root, *root.children(recursive=True)):
        try:
            # A parent's own figures hold those of the children that it has waited for.
            seconds += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return seconds


def children_rss(pid: int) -> list[int]:
    """The resident memory, in bytes, of each child of a process."""
    return [child.memory_info().rss for child in psutil.Process(pid).children()]


def descendants_rss(pid: int) -> int:
    """The resident memory, in bytes, of a process and all its descendants."""
    root = psutil.Process(pid)
    return sum(process.memory_info().rss for process in (root, *root.children(recursive=True)))

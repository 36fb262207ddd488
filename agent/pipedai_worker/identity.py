"""Tells processes apart by their start time too, because a new process can get the id of one that has ended."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def start_time(pid: int) -> str | None:
    """Return a text that differs for each process that ever has this id. Return None if there is no such process."""
    # platform.system() is called because type checkers evaluate sys.platform, and would report the other branch as
    # unreachable.
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # In /proc/PID/stat the second field is the program's name in parentheses, and may itself contain spaces and
        # parentheses. Fields are therefore counted after the last parenthesis. Field 22 is the start time, in clock
        # ticks since boot (proc(5)).
        return f"{boot}/{stat.rpartition(')')[2].split()[19]}"
    shown = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None

"""Tells whether a process is still the one that was started: a process id alone is used again."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def start_time(pid: int) -> str | None:
    """Something that no other process with this id has, or None if there is no such process."""
    # Not sys.platform, whose value a type checker takes for granted.
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The command's name, in parentheses, may hold anything; field 22 counts ticks since boot.
        return f"{boot}/{stat.rpartition(')')[2].split()[19]}"
    shown = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None

"""Tells whether a process is still the one that was started; its id alone could be another's by now."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


def start_time(pid: int) -> str | None:
    """Return a text that no other process with the same id ever has, or None if there is no such process."""
    # A type checker knows sys.platform, and would take the other branch for dead code.
    if platform.system() == "Linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return None
        # The command's name, in parentheses, may contain spaces and parentheses itself, so the fields
        # are counted after the last one. Field 22 is the start time in clock ticks since boot (proc(5)).
        return f"{boot}/{stat.rpartition(')')[2].split()[19]}"
    shown = subprocess.run(
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip() or None

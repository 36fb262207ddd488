"""Plays Claude Code for people and tests that do not have it: what `standin.py` does after it has read its options."""

from __future__ import annotations

import sys
from pathlib import Path

# The command that starts the stand-in: by its path and in Python's isolated mode, so that PYTHONPATH can't replace it.
# It needs none of the installed packages, which -S leaves out.
COMMAND = [sys.executable, "-I", "-S", str(Path(__file__).parent.with_name("standin.py"))]

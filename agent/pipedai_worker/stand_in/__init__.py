"""Plays Claude Code for people and tests that do not have it: what `standin.py` does after it has read its options."""

import sys
from pathlib import Path

# The stand-in, by its path, isolated (-I) so that PYTHONPATH can't replace it, and without installed packages (-S).
COMMAND = [sys.executable, "-I", "-S", str(Path(__file__).parent.with_name("standin.py"))]

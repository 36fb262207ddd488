"""Plays Claude Code for people and tests that do not have it: what `standin.py` does after it has read its options."""

import sys
from pathlib import Path

# Starts the stand-in by its path. With -I PYTHONPATH can't replace its modules, and with -S it imports no installed
# packages.
COMMAND = [sys.executable, "-I", "-S", str(Path(__file__).parent.with_name("standin.py"))]

"""What the workers execute: `python program.py FILE` appends to the file that it began, and how it ended.

The run's payload says how long it works and what it exits with. What it prints is different each
time, so that an outcome in the ledger can be told from every other.
"""

import json
import os
import secrets
import sys
import time
from pathlib import Path


def main() -> int:
    """Work as the payload says; the exit code."""
    run_id = os.environ["PIPEDAI_RUN_ID"]
    payload = next(line for line in sys.stdin if line.startswith("{"))
    work = json.loads(payload)
    note(f"began {run_id}")
    time.sleep(work["seconds"])
    said = secrets.token_hex(8)
    note(f"ended {run_id} {said} {work['exitCode']}")
    print(said)
    return int(work["exitCode"])


def note(line: str) -> None:
    """Append a line in one piece, whoever else appends at the same moment."""
    file = os.open(Path(sys.argv[1]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())

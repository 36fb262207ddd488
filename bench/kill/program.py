"""The program that the workers execute. `python program.py FILE` appends to the file its beginning and its end.

The run's payload says how long it works and its exit code. It prints something different each time,
so that the judge can tell each outcome in the ledger from all others.
"""

import json
import os
import sys
import time


def main() -> int:
    """Work as the payload says, and return the exit code."""
    run_id = os.environ["PIPEDAI_RUN_ID"]
    payload = next(line for line in sys.stdin if line.startswith("{"))
    work = json.loads(payload)
    note(f"began {run_id}")
    time.sleep(work["seconds"])
    said = os.urandom(8).hex()  # the module `secrets` takes longer to load than all else here
    note(f"ended {run_id} {said} {work['exitCode']}")
    print(said)
    return int(work["exitCode"])


def note(line: str) -> None:
    """Append a line in one piece, even if others append at the same moment."""
    file = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    sys.exit(main())

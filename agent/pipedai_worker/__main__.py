"""Lets `python -m pipedai_worker` stand for the `pipedai-worker` command."""

from __future__ import annotations

import sys

from pipedai_worker.cli import main

if __name__ == "__main__":
    sys.exit(main())

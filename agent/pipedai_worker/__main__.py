"""Makes `python -m pipedai_worker` the same command as `pipedai-worker`."""

import sys

from pipedai_worker.cli import main

if __name__ == "__main__":
    sys.exit(main())

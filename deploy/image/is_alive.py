"""The image's health check, which ends with code 0 if the web process on PORT answers that it is alive."""

import os
import sys
from urllib.request import urlopen

_SECONDS = 4


def main() -> int:
    """Ask the web process of this container. Return 0 if it answers 200; any failure ends with another code."""
    url = f"http://127.0.0.1:{os.environ['PORT']}/api/v1/health/live"
    with urlopen(url, timeout=_SECONDS) as answer:
        return 0 if answer.status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())

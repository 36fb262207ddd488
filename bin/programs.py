"""Installs the programs that only the tests need: the system packages, and in CI the real Claude CLI."""

import os
import sys

from bin import claude, packages


def main() -> int:
    """Run the command line. Return 1 in CI if something is missing that the tests need, else 0."""
    failed = packages.main()
    # The Claude CLI is installed after the packages, because npm, which installs it, is one of them.
    if os.environ.get("CI") == "true":
        failed |= claude.main()
    return failed


if __name__ == "__main__":
    sys.exit(main())

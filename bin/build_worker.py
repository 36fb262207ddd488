"""`python -m bin.build_worker` builds the wheels and sources of the worker and the command line (docs/releasing.md)."""

import hashlib
import os
import sys
from pathlib import Path

from flit_core.sdist import SdistBuilder

from workers.releases import CLI_SOURCE, SOURCE, cli_package, worker_package

_DEFAULT = "dist"
# flit_core takes the time of all files in the archive from this variable: 1980-01-01, as in the wheel.
_EPOCH = {"SOURCE_DATE_EPOCH": "315532800"}


def main() -> int:
    """The folder is the one that the command line names, else dist/."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else _DEFAULT)
    for path in build(folder):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")
    return 0


def build(folder: Path) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= _EPOCH
    built = []
    for source, package in ((SOURCE, worker_package()), (CLI_SOURCE, cli_package())):
        wheel = folder / package.name
        wheel.write_bytes(package.content)
        built += [wheel, SdistBuilder.from_ini_path(source / "pyproject.toml").build(folder)]
    return built


if __name__ == "__main__":
    sys.exit(main())

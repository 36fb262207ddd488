"""Makes a virtual environment with a copy of a compiled pip: `python quick_venv.py ENVIRONMENT PIP`.

It is as `python -m venv` makes it, which would unpack and compile pip for four seconds.
"""

import shutil
import sys
import sysconfig
import venv
from pathlib import Path


def main(environment: Path, pip: Path) -> None:
    """Make the environment; `pip` is the directory of the package."""
    venv.create(environment, symlinks=True)
    base = {"base": str(environment), "platbase": str(environment)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=base))
    for each in (pip, *pip.parent.glob("pip-*.dist-info")):
        # The copy keeps the times by which Python knows that compiled files belong to their sources.
        shutil.copytree(each, packages / each.name)
    program = environment / "bin" / "pip"
    python = environment / "bin" / "python"
    program.write_text(
        f"#!{python}\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n"
    )
    program.chmod(0o755)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

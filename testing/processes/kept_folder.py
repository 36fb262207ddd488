"""Keeps what a test has installed for later runs, as Docker keeps the layers of an image."""

import hashlib
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bin.suite import kept_files, used


@contextmanager
def kept_folder(place: Path, *deciding: bytes) -> Iterator[bool]:
    """Copies to `place` the folder that the block made there in an earlier run, or else keeps what it makes now.

    Yields whether the folder is there already. It is made anew when the machine's kind or `deciding` has changed.
    """
    told = hashlib.sha256(platform.machine().encode())
    for each in deciding:
        told.update(hashlib.sha256(each).digest())
    kept = kept_files() / "installed" / told.hexdigest()[:16]
    if kept.exists():
        _copy(used(kept), place)
        yield True
        return
    yield False
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as draft:
        _copy(place, Path(draft, "kept"))
        with suppress(OSError):  # Another run has kept its own meanwhile.
            Path(draft, "kept").rename(kept)


def _copy(source: Path, target: Path) -> None:
    # shutil takes twice the CPU time.
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # noqa: S603, S607

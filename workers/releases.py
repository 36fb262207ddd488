"""The wheels of the programs that people install: the worker, from `agent/`, and the command line, from `cli/`
(docs/releasing.md).

Their bytes depend on these files and the locked flit_core alone, so all web processes serve the same.
"""

import hashlib
import io
import shlex
import stat
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from django.conf import settings
from flit_core.wheel import WheelBuilder

from pipedai.env import BASE_DIR

SOURCE = BASE_DIR / "agent"
CLI_SOURCE = BASE_DIR / "cli"
DOWNLOADS = "/downloads/"
# The oldest time that a ZIP file can hold.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel: its file name, its bytes, and their SHA-256 in hexadecimal digits."""

    name: str
    content: bytes
    sha256: str

    @property
    def url(self) -> str:
        return f"{settings.PUBLIC_URL}{DOWNLOADS}{self.name}"

    @property
    def install_command(self) -> str:
        """Returns a command that installs the wheel, and refuses a file with another digest."""
        return f"pipx install {shlex.quote(f'{self.url}#sha256={self.sha256}')}"


@cache
def worker_package() -> Package:
    """Returns the worker's wheel. A process builds it once, in a tenth of a second. Raises OSError without `agent/`."""
    return _built(SOURCE)


@cache
def cli_package() -> Package:
    """Returns the wheel of the command line. Raises OSError in an image without `cli/`."""
    return _built(CLI_SOURCE)


def _built(source: Path) -> Package:
    compressed = io.BytesIO()
    builder = WheelBuilder.from_ini_path(source / "pyproject.toml", compressed)  # type: ignore[no-untyped-call]
    builder.build()
    content = _uncompressed(compressed)
    return Package(builder.wheel_filename, content, hashlib.sha256(content).hexdigest())


def _uncompressed(wheel: io.BytesIO) -> bytes:
    """Returns the wheel without the parts that differ between machines: compression (zlib), times and permissions."""
    rewritten = io.BytesIO()
    with (
        zipfile.ZipFile(wheel) as built,
        zipfile.ZipFile(rewritten, "w", zipfile.ZIP_STORED) as stored,
    ):
        for entry in built.infolist():
            copied = zipfile.ZipInfo(entry.filename, _ZIP_EPOCH)
            copied.create_system = 3  # 3 means Unix: the next line sets Unix permissions.
            copied.external_attr = (stat.S_IFREG | 0o644) << 16
            stored.writestr(copied, built.read(entry))
    return rewritten.getvalue()

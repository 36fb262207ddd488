"""The worker program as a package (a wheel), which this service builds from `agent/` and offers to hosts.

The bytes depend on the files of `agent/` and on the locked flit_core alone, not on the machine, the Python, the time or
the umask. All web processes of a release therefore serve the same bytes, and `python -m bin.build_worker` writes them
to a file. docs/releasing.md says how the package is published.
"""

import hashlib
import io
import shlex
import stat
import zipfile
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from flit_core.wheel import WheelBuilder

from pipedai.env import BASE_DIR

SOURCE = BASE_DIR / "agent"
DOWNLOADS = "/downloads/"
# The oldest time that a ZIP file can hold.
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class WorkerPackage:
    """A wheel: its file name, its bytes, and their SHA-256 in hexadecimal digits."""

    name: str
    content: bytes
    sha256: str

    @property
    def url(self) -> str:
        """The address from which hosts download the wheel."""
        return f"{settings.PUBLIC_URL}{DOWNLOADS}{self.name}"

    @property
    def install_command(self) -> str:
        """The command line that installs the wheel on a host. It names the wheel's digest, and refuses a file with
        another digest.
        """
        return f"pipx install {shlex.quote(f'{self.url}#sha256={self.sha256}')}"


@cache
def worker_package() -> WorkerPackage:
    """Returns the wheel of this release's worker. A process builds it once, which takes a tenth of a second.

    Raises OSError if the files of `agent/` are not there, as in an image without them.
    """
    compressed = io.BytesIO()
    builder = WheelBuilder.from_ini_path(SOURCE / "pyproject.toml", compressed)  # type: ignore[no-untyped-call]
    builder.build()
    content = _uncompressed(compressed)
    return WorkerPackage(builder.wheel_filename, content, hashlib.sha256(content).hexdigest())


def _uncompressed(wheel: io.BytesIO) -> bytes:
    """Returns a copy of the wheel without the things that differ between machines: compression, times and permissions.

    The new wheel is not compressed, because different versions of zlib make different bytes.
    """
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

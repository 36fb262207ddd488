"""Reads what a whole session of tests leaves behind: a dump of a database, and PostgreSQL's own log."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from django.conf import settings

from pipedai.embedded.cluster import wheel_bin
from pipedai.embedded.server import EmbeddedPostgres
from testing.processes.web_process import url_of


def dump_of(database: str) -> str:
    """Returns the whole database as `pg_dump` writes it: the schema, comments and every row."""
    url = urlsplit(url_of(database))
    bare = url._replace(netloc=url.netloc.replace(f":{url.password}@", "@"))
    ended = subprocess.run(  # noqa: S603
        [str(wheel_bin() / "pg_dump"), f"--dbname={urlunsplit(bare)}"],
        env={**os.environ, "PGPASSWORD": url.password or ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return ended.stdout.decode(errors="replace")


@dataclass
class LogTail:
    """Reads the part of a log that is written from now on. A log that was replaced meanwhile is read as a whole."""

    path: Path | None
    begins_at: int = 0

    @classmethod
    def of_postgres(cls) -> "LogTail":
        """Returns the tail of the embedded server's log. With another server it is empty, as we can't read its log."""
        path = None if settings.DATABASE_URL else EmbeddedPostgres(settings.DATA_DIR).layout.log
        return cls(path, path.stat().st_size if path and path.exists() else 0)

    def read(self) -> str:
        """Returns the text that has been added."""
        if self.path is None or not self.path.exists():
            return ""
        content = self.path.read_bytes()
        return content[self.begins_at if len(content) >= self.begins_at else 0 :].decode(
            errors="replace"
        )

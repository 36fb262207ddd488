"""Defines where an embedded server keeps its files, the user it runs as, and who may own its directories."""

import contextlib
import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipedai.embedded.programs import (
    EmbeddedPostgresError,
    User,
    explaining,
    first_closed,
    verify_private,
)

# If root starts a server and there is no account `postgres`, the server runs as this user number. systemd's list of
# UIDs (systemd.io/UIDS-GIDS) leaves the number unused, and it is below 65536, so that containers have it too.
SERVER_UID = 60901


@dataclass(frozen=True)
class Layout:
    """The paths of the embedded server in a data directory, whose path must be absolute and resolved."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def pid_file(self) -> Path:
        return self.cluster / "postmaster.pid"

    @property
    def log(self) -> Path:
        return self.cluster / "server.log"

    @property
    def passwords(self) -> Path:
        return self.data_dir / "postgres-passwords.json"

    @property
    def start_lock(self) -> Path:
        return self.data_dir / "postgres.start.lock"

    @property
    def run_lock(self) -> Path:
        """The file lock that every process of the server holds while it lives, so it tells whether the server runs."""
        return self.data_dir / "postgres.run.lock"

    @cached_property
    def socket_dir(self) -> Path:
        """The directory of the server's socket. A socket's path has 107 bytes at most, and all processes must find it,
        so it ignores TMPDIR. For root it is in /run, where no other user could create it first.
        """
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        if os.geteuid() == 0:
            return Path("/run") / f"pipedai-{name}"
        return Path("/tmp") / f"pipedai-{os.geteuid()}-{name}"  # noqa: S108 - verify_socket_dir checks its owner.

    @property
    def socket(self) -> Path:
        return self.socket_dir / ".s.PGSQL.5432"

    @property
    def server_user(self) -> User:
        """The user of this process; for root the cluster's owner, the account `postgres`, or the number SERVER_UID."""
        if os.geteuid() != 0:
            return User(os.geteuid(), os.getegid())
        candidates = [User(SERVER_UID, SERVER_UID)]
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam("postgres")
            candidates.insert(0, User(account.pw_uid, account.pw_gid))
        # The owner of an existing cluster comes before the account `postgres`, so that adding that account later does
        # not lock the server out of its cluster.
        owner = self.cluster.lstat().st_uid if self.cluster.is_dir() else None
        return next((user for user in candidates if user.uid == owner), candidates[0])

    def prepare_data_dir(self) -> None:
        """Make the data directory if it is missing, and verify that only this process's user may write in it."""
        with explaining(f"make {self.data_dir}"):
            try:
                self.data_dir.mkdir(parents=True)
                # If root runs the server, the server's user may pass through the data directory, but not list it.
                self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
            found = self.data_dir.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise EmbeddedPostgresError(f"{self.data_dir} is not a directory.")
        if found.st_uid != os.geteuid():
            raise EmbeddedPostgresError(
                f"{self.data_dir} belongs to uid {found.st_uid} and you are uid {os.geteuid()}:"
                " run as its owner, or set PIPEDAI_DATA_DIR to another directory."
            )
        if found.st_mode & 0o022:
            raise EmbeddedPostgresError(
                f"Others may write in {self.data_dir}: run `chmod go-w` on it,"
                " or set PIPEDAI_DATA_DIR to another directory."
            )

    def verify_reachable(self) -> None:
        user = self.server_user
        if not user.is_us and (closed := first_closed(user, self.data_dir)):
            raise EmbeddedPostgresError(
                f"The database server runs as {user}, which cannot pass through {closed}:"
                " set PIPEDAI_DATA_DIR to a directory that it can reach, such as /var/lib/pipedai."
            )

    def verify_cluster(self) -> None:
        verify_private(self.cluster, self.server_user)

    def prepare_socket_dir(self) -> None:
        """Make the socket's directory if it is missing, and verify that no other user made it."""
        user = self.server_user
        with explaining(f"make {self.socket_dir}"):
            with contextlib.suppress(FileExistsError):
                self.socket_dir.mkdir(mode=0o700)
            if self.socket_dir.lstat().st_uid == os.geteuid() != user.uid:
                os.chown(self.socket_dir, user.uid, user.gid, follow_symlinks=False)
        self.verify_socket_dir()

    def verify_socket_dir(self) -> None:
        verify_private(self.socket_dir, self.server_user)

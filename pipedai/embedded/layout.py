"""Defines the paths of an embedded server, the user it runs as, and who may own its directories."""

import contextlib
import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipedai.embedded.access import first_closed, verify_private
from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.programs import User

# If root starts a server and there is no `postgres` account, the server runs as this user. systemd's list of UIDs
# (systemd.io/UIDS-GIDS) leaves it unused, and it is below 65536, so that containers have it too.
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
        """The lock that a process holds while it makes, starts or stops the server."""
        return self.data_dir / "postgres.start.lock"

    @property
    def run_lock(self) -> Path:
        """The lock that every process of the server holds for as long as it lives."""
        return self.data_dir / "postgres.run.lock"

    @cached_property
    def socket_dir(self) -> Path:
        """The directory of the server's socket, which does not depend on a process's TMPDIR.

        It is short because a socket's path may have 107 bytes at most. Root's is in /run, where no other user can
        create it first.
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
        """The user of this process or, if that is root, the owner of the cluster, else `postgres`, else SERVER_UID."""
        if os.geteuid() != 0:
            return User(os.geteuid(), os.getegid())
        candidates = [User(SERVER_UID, SERVER_UID)]
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam("postgres")
            candidates.insert(0, User(account.pw_uid, account.pw_gid))
        # The owner counts first, so that a `postgres` account that was added later does not lock us out of the cluster.
        owner = self.cluster.lstat().st_uid if self.cluster.is_dir() else None
        return next((user for user in candidates if user.uid == owner), candidates[0])

    def prepare_data_dir(self) -> None:
        """Make the data directory if it is missing, and verify that only this process's user may write in it."""
        with explaining(f"make {self.data_dir}"):
            try:
                self.data_dir.mkdir(parents=True)
                # Root's data directory lets the server's user pass through it, but not list it.
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
        """Refuse a data directory that the server's user cannot reach."""
        user = self.server_user
        if not user.is_us and (closed := first_closed(user, self.data_dir)):
            raise EmbeddedPostgresError(
                f"The database server runs as {user}, which cannot pass through {closed}:"
                " set PIPEDAI_DATA_DIR to a directory that it can reach, such as /var/lib/pipedai."
            )

    def verify_cluster(self) -> None:
        """Refuse a cluster that other users than the server's may access."""
        verify_private(self.cluster, self.server_user)

    def prepare_socket_dir(self) -> None:
        """Make the socket's directory if it is missing, and verify it."""
        user = self.server_user
        with explaining(f"make {self.socket_dir}"):
            with contextlib.suppress(FileExistsError):
                self.socket_dir.mkdir(mode=0o700)
            if self.socket_dir.lstat().st_uid == os.geteuid() != user.uid:
                os.chown(self.socket_dir, user.uid, user.gid, follow_symlinks=False)
        self.verify_socket_dir()

    def verify_socket_dir(self) -> None:
        """Refuse a socket directory that another user could have made."""
        verify_private(self.socket_dir, self.server_user)

"""Where everything of an embedded server lives, and who must own it."""

import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pipedai.embedded.errors import EmbeddedPostgresError, explaining
from pipedai.embedded.programs import ServerUser, bin_dir, run

# The user of a server started by root where there is no `postgres` account. In the range that systemd's list of
# UIDs (systemd.io/UIDS-GIDS) leaves unused and below 65536, so that it exists in a container's user namespace.
SERVER_UID = 60901

SOCKET_NAME = ".s.PGSQL.5432"
# pg_ctl hands paths to a shell inside double quotes.
_UNSAFE = frozenset('"$`\\\n')


@dataclass(frozen=True)
class Layout:
    """The paths of the embedded server whose data directory this is."""

    data_dir: Path

    @property
    def cluster(self) -> Path:
        return self.data_dir / "postgres"

    @property
    def log(self) -> Path:
        return self.cluster / "server.log"

    @property
    def passwords(self) -> Path:
        return self.data_dir / "postgres-passwords.json"

    @property
    def start_lock(self) -> Path:
        """Held by whoever is making, starting or stopping the server."""
        return self.data_dir / "postgres.start.lock"

    @property
    def run_lock(self) -> Path:
        """Held by the server and each of its processes for as long as they live."""
        return self.data_dir / "postgres.run.lock"

    @cached_property
    def socket_dir(self) -> Path:
        """Short (a socket's path may have 107 bytes), and the same for every process whatever its TMPDIR.

        Root's is in /run, where nobody else can be there first.
        """
        name = hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]
        if os.geteuid() == 0:
            return Path("/run") / f"pipedai-{name}"
        return Path("/tmp") / f"pipedai-{os.geteuid()}-{name}"  # noqa: S108 - its owner is verified

    @property
    def socket(self) -> Path:
        return self.socket_dir / SOCKET_NAME

    @property
    def server_user(self) -> ServerUser:
        """Ourselves; for root the owner of the cluster, else `postgres`, else SERVER_UID."""
        if os.geteuid() != 0:
            return ServerUser(os.geteuid(), os.getegid())
        candidates = [ServerUser(SERVER_UID, SERVER_UID)]
        try:
            account = pwd.getpwnam("postgres")
            candidates.insert(0, ServerUser(account.pw_uid, account.pw_gid))
        except KeyError:
            pass
        # A postgres account that was added later must not lock us out of what is there.
        owner = self.cluster.lstat().st_uid if self.cluster.is_dir() else None
        return next((user for user in candidates if user.uid == owner), candidates[0])

    def prepare_data_dir(self) -> None:
        """Make the data directory if need be, and verify that it is ours alone to write in."""
        with explaining(f"make {self.data_dir}"):
            try:
                self.data_dir.mkdir(parents=True)
                # The server of another user passes through root's, and may not look around.
                self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
        found = self.data_dir.stat()
        if not stat.S_ISDIR(found.st_mode):
            raise EmbeddedPostgresError(f"{self.data_dir} is not a directory.")
        if found.st_uid != os.geteuid():
            raise EmbeddedPostgresError(
                f"{self.data_dir} belongs to uid {found.st_uid} and not to you (uid {os.geteuid()}):"
                " run as its owner, or set PIPEDAI_DATA_DIR to another directory."
            )
        if found.st_mode & 0o022:
            raise EmbeddedPostgresError(
                f"Others may write in {self.data_dir}: run `chmod go-w` on it,"
                " or set PIPEDAI_DATA_DIR to another directory."
            )

    def verify_reachable(self) -> None:
        """Refuse paths that the server's user cannot reach, or that pg_ctl's shell would misread."""
        for path in (self.data_dir, bin_dir()):
            if _UNSAFE & set(str(path)):
                raise EmbeddedPostgresError(
                    f"PostgreSQL cannot run in {str(path)!r}: its path has a quote, dollar, backslash or line break."
                )
        user = self.server_user
        if user.is_us:
            return
        if blocked := _closed_to(user, self.data_dir):
            raise EmbeddedPostgresError(
                f"The database server runs as {user} and cannot pass through {blocked}:"
                " set PIPEDAI_DATA_DIR to a directory that it can reach, such as /var/lib/pipedai."
            )
        if blocked := _closed_to(user, bin_dir()):
            raise EmbeddedPostgresError(
                f"The database server runs as {user} and cannot pass through {blocked} to PostgreSQL's"
                " programs: install the project where every user can read it, such as under /opt."
            )

    def verify_cluster(self) -> None:
        """Refuse a cluster directory that is not the server user's alone."""
        _verify_private(self.cluster, self.server_user)

    def prepare_socket_dir(self) -> None:
        """Make the socket's directory if need be, and verify it."""
        user = self.server_user
        with explaining(f"make {self.socket_dir}"):
            try:
                self.socket_dir.mkdir(mode=0o700)
            except FileExistsError:
                pass
            if not user.is_us and self.socket_dir.lstat().st_uid == os.geteuid():
                os.chown(self.socket_dir, user.uid, user.gid, follow_symlinks=False)
        self.verify_socket_dir()

    def verify_socket_dir(self) -> None:
        """Refuse a socket directory that anyone else could have put there."""
        _verify_private(self.socket_dir, self.server_user)


def _closed_to(user: ServerUser, path: Path) -> Path | None:
    """The first directory on the way to `path` that `user` may not pass; asked of the kernel, as ACLs count."""
    for directory in (*reversed(path.parents), path):
        if run("/bin/sh", "-c", 'test -x "$1"', "sh", directory, user=user).code:
            return directory
    return None


def _verify_private(directory: Path, user: ServerUser) -> None:
    """Refuse a symbolic link, another owner, and any access for group or others."""
    with explaining(f"use {directory}"):
        found = directory.lstat()
    if stat.S_ISLNK(found.st_mode) or not stat.S_ISDIR(found.st_mode):
        raise EmbeddedPostgresError(f"{directory} must be a directory, and no link to one.")
    if found.st_uid != user.uid:
        raise EmbeddedPostgresError(
            f"{directory} belongs to uid {found.st_uid} and not to the database server ({user}):"
            " remove it if it is not yours, or set PIPEDAI_DATA_DIR to another directory."
        )
    if found.st_mode & 0o077:
        raise EmbeddedPostgresError(f"Others may enter {directory}: run `chmod 700` on it.")

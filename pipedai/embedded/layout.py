"""Where an embedded server keeps its files and passwords, which user it runs as, and who may own its directories."""

import contextlib
import hashlib
import json
import os
import pwd
import secrets
import stat
from pathlib import Path

from pipedai.embedded.programs import EmbeddedPostgresError, User, explaining

SUPERUSER = "postgres"
APPLICATION = "pipedai"

# As root the server runs as the first of these accounts that exists. Every Linux has `bin`, and no process runs as it.
_ACCOUNTS = ("postgres", "bin")


class Layout:
    """The paths of the embedded server in a data directory, whose path must be absolute and resolved."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.cluster = data_dir / "postgres"
        self.pid_file = self.cluster / "postmaster.pid"
        self.log = self.cluster / "server.log"
        self.passwords = data_dir / "postgres-passwords.json"
        # Held by the process that makes, starts or stops the server.
        self.start_lock = data_dir / "postgres.start.lock"
        # Held by every process of the server while it lives, so it tells whether the server runs.
        self.run_lock = data_dir / "postgres.run.lock"
        # The path of a socket has 107 bytes at most, and all processes must find it, so it ignores TMPDIR. For root it
        # is in /run, where no other user could create it first. Elsewhere verify_socket_dir looks at its owner.
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        uid = os.geteuid()
        self.socket_dir = Path(f"/tmp/pipedai-{uid}-{name}" if uid else f"/run/pipedai-{name}")  # noqa: S108
        self.socket = self.socket_dir / ".s.PGSQL.5432"

    @property
    def server_user(self) -> User:
        """The user of this process. For root it is the owner of the cluster, or an account without rights.

        The owner comes first, so that adding the account `postgres` later does not lock the server out of its cluster.
        """
        if os.geteuid() != 0:
            return User(os.geteuid(), os.getegid())
        accounts = []
        for name in _ACCOUNTS:
            with contextlib.suppress(KeyError):
                account = pwd.getpwnam(name)
                accounts.append(User(account.pw_uid, account.pw_gid))
        if not accounts:
            raise EmbeddedPostgresError("PostgreSQL needs an account: add one named `postgres`.")
        owner = self.cluster.lstat().st_uid if self.cluster.is_dir() else None
        return next((user for user in accounts if user.uid == owner), accounts[0])

    def prepare_data_dir(self) -> None:
        """Make the data directory if it is missing, and verify that only this process's user may write in it."""
        with explaining(f"make {self.data_dir}"):
            try:
                self.data_dir.mkdir(parents=True)
                # If root runs the server, the server's user may pass through the data directory, but not list it.
                self.data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
            except FileExistsError:
                pass
        _verify_directory(self.data_dir, os.geteuid(), open_to_others=0o055)

    def verify_cluster(self) -> None:
        _verify_directory(self.cluster, self.server_user.uid)

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
        _verify_directory(self.socket_dir, self.server_user.uid)

    def read_passwords(self) -> dict[str, str] | None:
        """Return the generated passwords of the server's two roles, or None before its first start."""
        with explaining(f"read {self.passwords}"):
            try:
                kept = json.loads(self.passwords.read_text())
            except FileNotFoundError:
                return None
        return {role: kept[role] for role in (SUPERUSER, APPLICATION)}

    def make_passwords(self) -> dict[str, str]:
        """Generate the passwords, and write them to a file that only we can read, completely or not at all."""
        made = {role: secrets.token_urlsafe(32) for role in (SUPERUSER, APPLICATION)}
        draft = self.passwords.with_name(f"{self.passwords.name}.new")
        with explaining(f"write {self.passwords}"):
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(json.dumps(made))
            draft.replace(self.passwords)
        return made


def _verify_directory(directory: Path, owner: int, *, open_to_others: int = 0) -> None:
    """Raise an error if it is a symbolic link, is not `owner`'s, or lets others do more than `open_to_others` says."""
    with explaining(f"use {directory}"):
        found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise EmbeddedPostgresError(f"{directory} must be a directory, and no link to one.")
    if found.st_uid != owner:
        raise EmbeddedPostgresError(
            f"{directory} belongs to uid {found.st_uid} and must belong to uid {owner}:"
            " remove it if it is not yours, or set PIPEDAI_DATA_DIR to another directory."
        )
    if found.st_mode & 0o077 & ~open_to_others:
        raise EmbeddedPostgresError(
            f"Others may enter or change {directory}: run `chmod go-{'w' if open_to_others else 'rwx'}` on it."
        )

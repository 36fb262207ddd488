"""Makes the embedded server's cluster (its data), roles and database, completely or not at all."""

import contextlib
import os
import pwd
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipedai.embedded import passwords, tuning
from pipedai.embedded.layout import Layout
from pipedai.embedded.programs import EmbeddedPostgresError, Outcome, User, explaining, run

DATABASE = "pipedai"

# initdb and PostgreSQL's single-user mode need a user that has an account. The number SERVER_UID has none, so these
# programs then run as the first of these accounts that exists, for half a second. Every Linux has `bin`, and no process
# runs as it.
_LENT_ACCOUNTS = ("bin", "nobody")


@dataclass(frozen=True)
class ClusterMaker:
    """Makes and repairs the cluster. Use it only while no server is alive and this process holds the start lock. The
    programs that it runs inherit the lock, and keep it if our process is killed.
    """

    layout: Layout
    programs: Path
    start_lock: int
    # Settings of the server, for tests alone: with any, nothing is kept safe from a crash.
    faster: Mapping[str, str]

    def ensure(self) -> None:
        kept = passwords.read(self.layout.passwords)
        if not self.layout.cluster.exists():
            if kept is None:
                kept = passwords.generate()
                passwords.write(self.layout.passwords, kept)
            self._create(kept)
        self.layout.verify_cluster()
        self._verify_version()
        if kept is None:
            kept = passwords.generate()
            statements = _password_statements(kept)
            self._execute(statements, self.layout.cluster, self.layout.server_user)
            passwords.write(self.layout.passwords, kept)

    def _create(self, kept: dict[str, str]) -> None:
        """Make the cluster under a temporary name and then rename it, so that an unfinished cluster is never used."""
        layout = self.layout
        with explaining(f"remove an unfinished cluster in {layout.data_dir}"):
            for unfinished in layout.data_dir.glob("postgres.new-*"):
                shutil.rmtree(unfinished)
        draft = layout.data_dir / f"postgres.new-{secrets.token_hex(8)}"
        maker = _maker(layout.server_user)
        try:
            with explaining(f"make {layout.cluster}"):
                draft.mkdir(mode=0o700)
                if not maker.is_us:
                    os.chown(draft, maker.uid, maker.gid)
            self._initdb(
                draft,
                maker,
                f"--username={passwords.SUPERUSER}",
                "--auth=reject",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
                "--no-sync",
                *tuning.as_arguments(tuning.DEFAULTS),
            )
            self._replace_access_rules(draft, maker)
            self._execute(
                [
                    f"CREATE ROLE {passwords.APPLICATION} LOGIN CREATEDB",
                    *_password_statements(kept),
                    f"CREATE DATABASE {DATABASE} OWNER {passwords.APPLICATION}",
                ],
                draft,
                maker,
            )
            if not self.faster:
                self._initdb(draft, maker, "--sync-only")
            if maker != layout.server_user:
                _hand_over(draft, layout.server_user)
            with explaining(f"make {layout.cluster}"):
                draft.rename(layout.cluster)
                _sync(layout.data_dir)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise

    def _initdb(self, cluster: Path, user: User, *options: str) -> None:
        program = self.programs / "initdb"
        inherit = [self.start_lock]
        self._verify_done(run(program, f"--pgdata={cluster}", *options, user=user, inherit=inherit))

    def _replace_access_rules(self, cluster: Path, user: User) -> None:
        """Writes, as `user`, a pg_hba.conf that demands a password of everyone. Root must not write there."""
        rules = cluster / "pg_hba.conf"
        given = "local all all scram-sha-256\n"
        self._verify_done(run("/bin/sh", "-c", 'cat > "$1"', "sh", rules, user=user, stdin=given))

    def _execute(self, statements: list[str], cluster: Path, user: User) -> None:
        """Runs SQL in single-user mode, which needs no server and no password. Each statement must be one line."""
        settings = {
            **tuning.DISCREET,
            "exit_on_error": "on",
            "password_encryption": "scram-sha-256",
            **self.faster,
        }
        done = run(
            self.programs / "postgres",
            "--single",
            "-D",
            cluster,
            *tuning.as_arguments(settings),
            "template1",
            user=user,
            stdin="".join(f"{statement}\n" for statement in statements),
            inherit=[self.start_lock],
        )
        self._verify_done(done)

    def _verify_done(self, outcome: Outcome) -> None:
        if outcome.code:
            raise EmbeddedPostgresError(
                f"Cannot set up a database in {self.layout.data_dir}: {outcome.reason}."
            )

    def _verify_version(self) -> None:
        cluster = self.layout.cluster
        try:
            made_by = (cluster / "PG_VERSION").read_text().strip()
        except OSError:
            raise EmbeddedPostgresError(
                f"{cluster} holds no PostgreSQL cluster: move it away, or set PIPEDAI_DATA_DIR."
            ) from None
        said = run(self.programs / "postgres", "--version", user=self.layout.server_user)
        self._verify_done(said)
        ours = said.text.split()[2]  # The text is like "postgres (PostgreSQL) 18.6".
        if made_by != ours.split(".")[0]:
            raise EmbeddedPostgresError(
                f"{cluster} was made by PostgreSQL {made_by} and this is {ours}: with the release"
                f" that made it run `manage.py pg dump FILE`, then move {cluster} away,"
                " and with this one run `manage.py pg restore FILE`."
            )


def _password_statements(kept: dict[str, str]) -> list[str]:
    return [f"ALTER ROLE {role} PASSWORD '{password}'" for role, password in kept.items()]


def _maker(server_user: User) -> User:
    if server_user.is_us:
        return server_user
    with contextlib.suppress(KeyError):
        pwd.getpwuid(server_user.uid)
        return server_user
    for name in _LENT_ACCOUNTS:
        with contextlib.suppress(KeyError):
            account = pwd.getpwnam(name)
            return User(account.pw_uid, account.pw_gid)
    raise EmbeddedPostgresError(
        "PostgreSQL needs an account to make its database: add one named `postgres`."
    )


def _hand_over(draft: Path, owner: User) -> None:
    """Give a directory tree to its owner, starting at the top, so that its maker can't change it in the meantime."""
    with explaining(f"give {draft} to {owner}"):
        os.chown(draft, owner.uid, owner.gid, follow_symlinks=False)
        for _, directories, files, at in os.fwalk(draft):
            for name in (*directories, *files):
                os.chown(name, owner.uid, owner.gid, dir_fd=at, follow_symlinks=False)


def _sync(directory: Path) -> None:
    """Write a directory's list of names to disk, so that a crash does not undo a rename in it."""
    file = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)

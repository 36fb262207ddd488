"""Reads environment variables as typed values. `.env.example` lists every variable."""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import environ
from django.core.exceptions import ImproperlyConfigured

# The regular expressions for versions that semver.org suggests.
_NUMBER = r"(?:0|[1-9]\d*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-(?:{_NUMBER}|\d*[a-zA-Z-][\da-zA-Z-]*)(?:\.(?:{_NUMBER}|\d*[a-zA-Z-][\da-zA-Z-]*))*)?"
    r"(?:\+[\da-zA-Z-]+(?:\.[\da-zA-Z-]+)*)?",
    re.ASCII,
)

BASE_DIR = Path(__file__).resolve().parent.parent

# Connection parameters by which libpq notices that a network loses all packets, in seconds (tcp_user_timeout in
# milliseconds). Without them a process could wait for minutes for a server that is gone. A database URL may set other
# values.
DATABASE_PATIENCE: dict[str, object] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

# The same parameters for a read replica, but with shorter waits, because the primary can answer instead.
REPLICA_PATIENCE: dict[str, object] = {
    **DATABASE_PATIENCE,
    "connect_timeout": 2,
    "tcp_user_timeout": 3_000,
}

_env = environ.Env()  # type: ignore[no-untyped-call]


def read_file(path: Path) -> None:
    """Reads the variables in a file. The process's own environment variables win over the file."""

    def hide_line(record: logging.LogRecord) -> bool:
        # django-environ logs each line that it can't read, and the line may hold a key.
        record.msg, record.args = f"A line of {path} is not NAME=value, and is ignored.", ()
        return True

    logger = logging.getLogger("environ.environ")
    logger.addFilter(hide_line)
    environ.Env.read_env(path)
    logger.removeFilter(hide_line)


# The checkout's .env file is read if there is one.
if (BASE_DIR / ".env").is_file():
    read_file(BASE_DIR / ".env")


def text(name: str, default: str = "") -> str:
    return os.environ.get(name, "").strip() or default


def flag(name: str, *, default: bool) -> bool:
    value = text(name).lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false.")


def whole(name: str, default: int, *, at_least: int = 0, at_most: int = 10**9) -> int:
    """Reads a whole number. Raises an error for a number outside its bounds."""
    value = text(name)
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name} must be a whole number.") from None
    if not at_least <= number <= at_most:
        raise ImproperlyConfigured(f"{name} must be between {at_least} and {at_most}.")
    return number


def words(name: str, default: tuple[str, ...] = ()) -> list[str]:
    value = text(name)
    if not value:
        return list(default)
    return [word.strip() for word in value.split(",") if word.strip()]


def semver(name: str, default: str) -> str:
    """Reads a version as semver.org defines it: `1.2.3`, `1.2.3-rc.1`."""
    value = text(name, default)
    if not _SEMVER.fullmatch(value):
        raise ImproperlyConfigured(f"{name} must be a semantic version, such as 1.2.3.")
    return value


def choice(name: str, options: tuple[str, ...], default: str) -> str:
    value = text(name, default)
    if value not in options:
        raise ImproperlyConfigured(f"{name} must be one of: {', '.join(options)}.")
    return value


def data_dir() -> Path:
    """Returns the directory of the embedded database and of other files of this installation."""
    if chosen := text("PIPEDAI_DATA_DIR"):
        return Path(chosen).expanduser().resolve()
    return default_data_dir()


def default_data_dir() -> Path:
    """Returns the data directory of an installation that names no other.

    If root runs the process, the default is under /var/lib, because PostgreSQL then runs as an unprivileged user, who
    could not reach a directory under root's home. For other users the default is under their own data directory.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/pipedai")
    return Path(text("XDG_DATA_HOME", str(Path.home() / ".local" / "share"))) / "pipedai"


def database_url(name: str) -> str:
    """Reads a `postgres://` URL, or "" if the variable is unset. No error quotes the URL's password."""
    url = text(name)
    if url:
        try:
            sane = url.startswith(("postgres://", "postgresql://")) and database_config(url)["NAME"]
        except ValueError:
            sane = False
        if not sane:
            raise ImproperlyConfigured(
                f"{name} must be a URL such as postgres://user:password@host:5432/database."
            )
    return url


def database_config(
    url: str, *, patience: Mapping[str, object] = DATABASE_PATIENCE
) -> dict[str, Any]:
    """`?host=/path` in the URL names a socket directory. The URL may override the parameters in `patience`."""
    config: dict[str, Any] = _env.db_url_config(url)  # type: ignore[no-untyped-call]
    return {**config, "OPTIONS": {**patience, **config.get("OPTIONS", {})}}


# The port for each scheme of EMAIL_URL if the URL names none. The scheme `smtps` is not accepted, because some programs
# mean TLS from the first byte by it, and others STARTTLS.
_MAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}


def email_url(name: str) -> str:
    """Reads a mail server's URL, or "": `smtp+tls` for STARTTLS, `smtp+ssl` for TLS from the first byte, `smtp` for
    none. No error quotes the URL's password.
    """
    url = text(name)
    if url:
        try:
            sane = url.partition("://")[0] in _MAIL_PORTS and bool(email_config(url)["host"])
        except ValueError:
            sane = False
        if not sane:
            raise ImproperlyConfigured(
                f"{name} must be a URL such as smtp+tls://user:password@mail.example.com:587,"
                " with smtp, smtp+tls or smtp+ssl."
            )
    return url


def email_config(url: str) -> dict[str, Any]:
    config: dict[str, Any] = _env.email_url_config(url)  # type: ignore[no-untyped-call]
    return {
        "host": config["EMAIL_HOST"],
        "port": config["EMAIL_PORT"] or _MAIL_PORTS[url.partition("://")[0]],
        "username": config["EMAIL_HOST_USER"] or "",
        "password": config["EMAIL_HOST_PASSWORD"] or "",
        "use_tls": config.get("EMAIL_USE_TLS", False),
        "use_ssl": config.get("EMAIL_USE_SSL", False),
    }


_CGROUPS = Path("/sys/fs/cgroup")
_MIB = 1024 * 1024
# How much memory the hash of a password takes: OWASP's first choice (accounts/passwords.py).
HASH_MIB = 46


def passwords_at_once(*, processors: int, threads: int, memory_mib: int) -> int:
    """Returns how many passwords a web process hashes at once, from the processors, threads and memory that it may use.

    More hashes at once than processors would save no time. Half of the threads stay free for other requests, and three
    fifths of the memory for everything else.
    """
    return max(1, min(processors, threads // 2, memory_mib * 2 // 5 // HASH_MIB))


def memory_budget_mib(memory_mib: int) -> int:
    """Returns the memory budget of a web process: a fifth of the memory that it may use, from 37 to 256 MiB.

    One client address may use a quarter of it, and of that seven eighths for large bodies. The longest body, which is a
    plan of 8 MiB, still fits into this part of 37 MiB.
    """
    return min(max(37, memory_mib // 5), 256)


def processors(groups: Path = _CGROUPS) -> int:
    """Returns how many processors this process may use: the least of its allowed processors and its cgroups' quotas."""
    on_linux = hasattr(os, "sched_getaffinity")
    most: float = len(os.sched_getaffinity(0)) if on_linux else os.cpu_count() or 1
    for quota in _limits(groups, "cpu.max"):
        allowed, _, period = quota.partition(" ")
        if allowed.isdigit() and period.isdigit():
            most = min(most, int(allowed) / int(period))
    return max(1, math.ceil(most))


def memory_mib(groups: Path = _CGROUPS) -> int:
    """Returns how many MiB of memory this process may use: the machine's memory, or less if its cgroups limit it."""
    limits = [*_limits(groups, "memory.max"), *_read(groups / "memory" / "memory.limit_in_bytes")]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(int(limit) for limit in limits if limit.isdigit())]) // _MIB


def _limits(groups: Path, name: str) -> Iterator[str]:
    """Yields a limit of this process's cgroup (version 2) and of all those around it. A container sees its own as the
    outermost one.
    """
    ours = [line for line in _read(Path("/proc/self/cgroup")) if line.startswith("0::/")]
    group = Path(ours[0].removeprefix("0::/") if ours else "")
    for each in {group, *group.parents}:
        yield from _read(groups / each / name)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []  # There is no such limit here.

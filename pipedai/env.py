"""Reads the environment once into typed values. Every variable is listed in `.env.example`."""

import os
import re
from pathlib import Path
from typing import Any, Literal, cast

import environ
from django.core.exceptions import ImproperlyConfigured

Environment = Literal["development", "production"]

# As semver.org suggests it.
_NUMBER = r"(?:0|[1-9]\d*)"
_SEMVER = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-(?:{_NUMBER}|\d*[a-zA-Z-][\da-zA-Z-]*)(?:\.(?:{_NUMBER}|\d*[a-zA-Z-][\da-zA-Z-]*))*)?"
    r"(?:\+[\da-zA-Z-]+(?:\.[\da-zA-Z-]+)*)?",
    re.ASCII,
)

BASE_DIR = Path(__file__).resolve().parent.parent

# libpq's parameters for a network that swallows packets, in seconds (the last in milliseconds): nobody waits for
# minutes, nor keeps a connection whose peer vanished. A URL may say otherwise.
DATABASE_PATIENCE: dict[str, object] = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}

_env = environ.Env()  # type: ignore[no-untyped-call]
# A checkout's .env file, where there is one; the process's own environment wins.
if (BASE_DIR / ".env").is_file():
    environ.Env.read_env(BASE_DIR / ".env")


def text(name: str, default: str = "") -> str:
    """A string; an empty variable counts as unset."""
    return os.environ.get(name, "").strip() or default


def flag(name: str, *, default: bool) -> bool:
    """A boolean: 1/0, true/false, yes/no, on/off."""
    value = text(name).lower()
    if not value:
        return default
    if value in {"1", "true", "yes", "on"}:
        return True
    if value in {"0", "false", "no", "off"}:
        return False
    raise ImproperlyConfigured(f"{name} must be true or false.")


def whole(name: str, default: int, *, at_least: int = 0, at_most: int = 10**9) -> int:
    """A whole number within its bounds."""
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
    """A comma-separated list."""
    value = text(name)
    if not value:
        return list(default)
    return [word.strip() for word in value.split(",") if word.strip()]


def semver(name: str, default: str) -> str:
    """A version after semver.org: `1.2.3`, `1.2.3-rc.1`."""
    value = text(name, default)
    if not _SEMVER.fullmatch(value):
        raise ImproperlyConfigured(f"{name} must be a semantic version, such as 1.2.3.")
    return value


def choice(name: str, options: tuple[str, ...], default: str) -> str:
    """One of a few words."""
    value = text(name, default)
    if value not in options:
        raise ImproperlyConfigured(f"{name} must be one of: {', '.join(options)}.")
    return value


def pipedai_env() -> Environment:
    """`production` (set by the Procfile) refuses unsafe settings; `development` is the default."""
    return cast("Environment", choice("PIPEDAI_ENV", ("development", "production"), "development"))


def data_dir() -> Path:
    """Where the embedded database and what belongs to this installation lives.

    The default is under /var/lib as root, because the server then runs as an unprivileged user who could not
    reach a folder under root's home; else under the user's own data folder.
    """
    if chosen := text("PIPEDAI_DATA_DIR"):
        return Path(chosen).expanduser().resolve()
    if os.geteuid() == 0:
        return Path("/var/lib/pipedai")
    return Path(text("XDG_DATA_HOME", str(Path.home() / ".local" / "share"))) / "pipedai"


def database_url(name: str) -> str:
    """The `postgres://` URL of a database, empty when unset. A bad one is not quoted: it may hold a password."""
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


def database_config(url: str) -> dict[str, Any]:
    """Django's settings for a `database_url`; `?host=/path` names a socket directory."""
    config: dict[str, Any] = _env.db_url_config(url)  # type: ignore[no-untyped-call]
    return {**config, "OPTIONS": {**DATABASE_PATIENCE, **config.get("OPTIONS", {})}}

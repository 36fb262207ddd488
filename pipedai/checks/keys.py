"""The rules for keys: they must be secret, hard to guess, and not stored beside what they protect."""

from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from pipedai import crypto, env
from pipedai.checks import READABLE, rule

# The least length of SECRET_KEY, which Django's own check security.W009 demands too.
_SECRET_KEY_LENGTH = 50
_SECRET_KEY_CHARACTERS = 5
# The least number of different byte values in a master key. 32 random bytes practically never have fewer.
_MASTER_KEY_DIFFERENT_BYTES = 8
_METRICS_TOKEN_LENGTH = 32
_SET_SECRET_KEY = (
    "set it to the output of `python -c 'import secrets; print(secrets.token_urlsafe(48))'`"  # noqa: S105
)
_SET_MASTER_KEYS = "set it to k1: and the output of `openssl rand -base64 32`"
# The most bytes of a file in which we look for keys. No file of keys is larger.
_KEY_FILE_BYTES = 64 * 1024


@rule("pipedai.E001")
def secret_key() -> str | None:
    """SECRET_KEY and its fallbacks must be secret and long."""
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if settings.DEVELOPMENT_SECRET_KEY in keys:
        return f"SECRET_KEY is or falls back to the well-known development key: {_SET_SECRET_KEY}."
    if any(len(key) < _SECRET_KEY_LENGTH or len(set(key)) < _SECRET_KEY_CHARACTERS for key in keys):
        return (
            f"SECRET_KEY and SECRET_KEY_FALLBACKS need {_SECRET_KEY_LENGTH} random characters each:"
            f" {_SET_SECRET_KEY}."
        )
    return None


@rule("pipedai.E002", READABLE)
def unreadable_master_keys() -> str | None:
    try:
        crypto.parse_master_keys(tuple(settings.MASTER_KEYS))
    except ValueError as error:
        return f"{str(error).removesuffix('.')}: {_SET_MASTER_KEYS}."
    return None


@rule("pipedai.E002")
def master_keys() -> str | None:
    """MASTER_KEYS must be readable, and each key secret and random."""
    if unreadable_master_keys():
        return None
    keys = crypto.parse_master_keys(tuple(settings.MASTER_KEYS))
    development = crypto.parse_master_keys(settings.DEVELOPMENT_MASTER_KEYS)
    if {key.key for key in keys} & {key.key for key in development}:
        return f"MASTER_KEYS holds the well-known development key: {_SET_MASTER_KEYS}."
    if any(len(set(key.key)) < _MASTER_KEY_DIFFERENT_BYTES for key in keys):
        return f"MASTER_KEYS holds a key that is not random: {_SET_MASTER_KEYS}."
    return None


@rule("pipedai.E014")
def metrics_token() -> str | None:
    """METRICS_TOKEN must be hard to guess if it is set."""
    if settings.METRICS_TOKEN and len(settings.METRICS_TOKEN) < _METRICS_TOKEN_LENGTH:
        return (
            f"METRICS_TOKEN needs {_METRICS_TOKEN_LENGTH} random characters:"
            " set it to the output of `openssl rand -hex 32`."
        )
    return None


@rule("pipedai.E008")
def beside_the_embedded_database() -> str | None:
    """The keys must not lie in the embedded database's directory, so that a thief of it does not get the keys."""
    if settings.DATABASES["default"]["ENGINE"] != "pipedai.embedded":
        return None
    for path in _files_beside_the_database():
        if _holds_a_key(path):
            return (
                f"{path} keeps a key beside the embedded database that it protects:"
                f" move it out of {settings.DATA_DIR}, or change PIPEDAI_DATA_DIR."
            )
    return None


def _files_beside_the_database() -> Iterator[Path]:
    dotenv = env.BASE_DIR / ".env"
    if dotenv.is_relative_to(settings.DATA_DIR):
        yield dotenv
    if settings.DATA_DIR.is_dir():
        yield from settings.DATA_DIR.iterdir()


def _holds_a_key(path: Path) -> bool:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    keys += [entry.partition(":")[2] for entry in settings.MASTER_KEYS]
    try:
        if not path.is_file() or path.stat().st_size > _KEY_FILE_BYTES:
            return False
        content = path.read_bytes()
    except OSError:
        return False  # This process can't read the file, so its keys don't come from there.
    return any(key.encode() in content for key in keys if key)

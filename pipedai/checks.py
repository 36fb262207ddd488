"""Refuses unsafe production settings, at start-up and in `manage.py check --deploy` (SPEC §8)."""

import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.checks import Error
from django.core.exceptions import ImproperlyConfigured

from pipedai import crypto, env

# As in Django's own security.W009.
_SECRET_KEY_LENGTH = 50
_SECRET_KEY_CHARACTERS = 5
_SET_SECRET_KEY = (
    "set it to the output of `python -c 'import secrets; print(secrets.token_urlsafe(48))'`"  # noqa: S105
)
_SET_MASTER_KEYS = "set it to k1: and the output of `openssl rand -base64 32`"
# More than any file of keys; what is larger is not read.
_KEY_FILE_BYTES = 64 * 1024
# A webhook that reaches one of these reaches this machine, or the credentials its cloud hands it.
_NEVER_FOR_WEBHOOKS = {
    "loopback": ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
    "cloud metadata": (
        "169.254.169.254/32",
        "169.254.170.2/32",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "fd00:ec2::254/128",
        "fd20:ce::254/128",
    ),
}
_MAPPED_IPV4 = ipaddress.IPv6Network("::ffff:0:0/96")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def refuse_unsafe_production() -> None:
    """Raise ImproperlyConfigured, one line a problem, if the settings are unfit for production."""
    if found := list(problems()):
        raise ImproperlyConfigured("\n".join(sentence for _, sentence in found))


def check_production_settings(**_kwargs: Any) -> list[Error]:
    """The same for `manage.py check --deploy`, whatever `PIPEDAI_ENV` is now."""
    return [Error(sentence, id=check_id) for check_id, sentence in problems()]


def problems() -> Iterator[tuple[str, str]]:
    """The id and the sentence of each rule that the settings break. No sentence holds a key."""
    for check_id, rule in _RULES.items():
        if sentence := rule():
            yield check_id, sentence


def _secret_key() -> str | None:
    keys = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
    if settings.DEVELOPMENT_SECRET_KEY in keys:
        return f"SECRET_KEY is or falls back to the well-known development key: {_SET_SECRET_KEY}."
    if any(len(key) < _SECRET_KEY_LENGTH or len(set(key)) < _SECRET_KEY_CHARACTERS for key in keys):
        return (
            f"SECRET_KEY and SECRET_KEY_FALLBACKS need {_SECRET_KEY_LENGTH} random characters each:"
            f" {_SET_SECRET_KEY}."
        )
    return None


def _master_keys() -> str | None:
    development = crypto.parse_master_keys(settings.DEVELOPMENT_MASTER_KEYS)
    try:
        keys = crypto.parse_master_keys(tuple(settings.MASTER_KEYS))
    except ValueError as error:
        return f"{str(error).removesuffix('.')}: {_SET_MASTER_KEYS}."
    if {key.key for key in keys} & {key.key for key in development}:
        return f"MASTER_KEYS holds the well-known development key: {_SET_MASTER_KEYS}."
    return None


def _debug() -> str | None:
    if settings.DEBUG:
        return "DEBUG shows secrets in error pages: unset it or set it to false."
    return None


def _allowed_hosts() -> str | None:
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        return (
            "ALLOWED_HOSTS is empty or holds *:"
            " set it to the names that clients reach the API by, such as api.example.com."
        )
    return None


def _allowed_origins() -> str | None:
    for origin in settings.ALLOWED_ORIGINS:
        if not origin.startswith("https://") or "*" in origin:
            return (
                f"ALLOWED_ORIGINS holds {origin}, which is no https origin:"
                " set it to those of the dashboards, such as https://app.example.com."
            )
    return None


def _cookie_samesite() -> str | None:
    if settings.COOKIE_SAMESITE == "None" and not settings.ALLOWED_ORIGINS:
        return (
            "COOKIE_SAMESITE=None lets every site send the cookie:"
            " set ALLOWED_ORIGINS to those that need it, or COOKIE_SAMESITE to Lax."
        )
    return None


def _throttles() -> str | None:
    if not settings.THROTTLES_ENABLED:
        return "THROTTLES_ENABLED is off and lets passwords be guessed: unset it or set it to true."
    return None


def _embedded_database() -> str | None:
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
        return False  # what this process may not read did not give it its keys
    return any(key.encode() in content for key in keys if key)


def _webhook_networks() -> str | None:
    for text in settings.WEBHOOK_ALLOWED_NETWORKS:
        try:
            network = _unmapped(ipaddress.ip_network(text, strict=False))
        except ValueError:
            return (
                f"WEBHOOK_ALLOWED_NETWORKS holds {text}, which is no network:"
                " set it to networks such as 10.20.0.0/16."
            )
        for kind, members in _NEVER_FOR_WEBHOOKS.items():
            if any(_overlap(network, ipaddress.ip_network(member)) for member in members):
                return (
                    f"WEBHOOK_ALLOWED_NETWORKS holds {text}, which has {kind} addresses in it:"
                    " set it to the receivers' networks alone."
                )
    return None


def _unmapped(network: Network) -> Network:
    """`::ffff:10.0.0.0/104` is 10.0.0.0/8 by another name."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED_IPV4):
        address = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED_IPV4.prefixlen))
    return network


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)


# The ids are Django's way to name a check; they are never given to another rule.
_RULES: dict[str, Callable[[], str | None]] = {
    "pipedai.E001": _secret_key,
    "pipedai.E002": _master_keys,
    "pipedai.E003": _debug,
    "pipedai.E004": _allowed_hosts,
    "pipedai.E005": _allowed_origins,
    "pipedai.E006": _cookie_samesite,
    "pipedai.E007": _throttles,
    "pipedai.E008": _embedded_database,
    "pipedai.E009": _webhook_networks,
}

"""Rules for settings, in Django's check framework, and probes of deployments.

Settings that break a rule keep a process from starting. `manage.py check_deploy` runs the probes.
"""

import ipaddress
import os
import re
import sys
from collections.abc import Callable, Iterator
from email.utils import parseaddr
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.core.checks import CheckMessage, Error
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import validate_email
from django.db import DatabaseError

from pipedai import crypto, env
from pipedai.redaction import escape_control, redact_text
from pipedai.server.request_scope import Network, parse_networks

# Rules with the tag READABLE hold everywhere, because a setting that can't be read would crash the code that uses it.
# Rules with the tag PRODUCTION hold only in production.
READABLE, PRODUCTION = "readable", "production"
DATABASE, MIGRATIONS = "database", "migrations"
# The id of the message of a probe that could not look, for example because the database is away.
UNKNOWN = "pipedai.unknown"

Rule = Callable[[], str | None]
Look = Callable[[], CheckMessage]

_readable: dict[str, Rule] = {}


def rule(check_id: str, tag: str = PRODUCTION) -> Callable[[Rule], Rule]:
    """Registers a function that returns None, or a sentence on the problem, which must contain no key. A rule of
    production is skipped if the READABLE rule with the same id has found that the setting can't be read.
    """

    def register(broken: Rule) -> Rule:
        if tag == READABLE:
            _readable[check_id] = broken

        def check(**_: Any) -> list[Error]:
            unreadable = _readable.get(check_id) if tag == PRODUCTION else None
            sentence = None if unreadable and unreadable() else broken()
            return [Error(escape_control(redact_text(sentence)), id=check_id)] if sentence else []

        checks.register(check, checks.Tags.security, tag, deploy=True)
        return broken

    return register


def problems(*tags: str) -> list[CheckMessage]:
    """Returns the problems of the settings, by the rules with these tags. Without tags it asks those of production."""
    found = checks.run_checks(tags=tags or (READABLE, PRODUCTION), include_deployment_checks=True)
    return sorted(found, key=lambda each: str(each.id))


def refuse_unfit_settings() -> None:
    """Raises ImproperlyConfigured for settings that can't be read, and in production for unsafe ones."""
    broken = problems() if settings.PRODUCTION else problems(READABLE)
    if broken:
        raise ImproperlyConfigured("\n".join(each.msg for each in broken))


class Probe(NamedTuple):
    """One check of a deployment.

    `look` returns its result: an Info if all is well, a Warning if an operator should know the consequence of a choice
    of theirs, else an Error. The hint of a Warning or an Error says what to do, a line for each step. `look` changes
    nothing, and may raise DatabaseError.
    """

    name: str
    look: Look
    needs_database: bool


_probes: list[Probe] = []


def register_probe(name: str, look: Look, *, needs_database: bool = True) -> None:
    _probes.append(Probe(name, look, needs_database))


def look_at_all() -> Iterator[tuple[str, CheckMessage]]:
    """Runs every probe and yields its name with its result.

    The result is a Warning with the id UNKNOWN, and no problem, if a probe needs the database and the database is away,
    or refuses the probe's query because migrations are not applied.
    """
    reachable = migrated = True
    for probe in _probes:
        if probe.needs_database and not reachable:
            yield probe.name, checks.Warning("Unknown without the database.", id=UNKNOWN)
            continue
        found = _look(probe, migrated=migrated)
        if probe.name == DATABASE:
            reachable = not found.is_serious()
        elif probe.name == MIGRATIONS:
            migrated = not found.is_serious()
        yield probe.name, found


def _look(probe: Probe, *, migrated: bool) -> CheckMessage:
    # The import stands here, because `pipedai.sql` can be imported only with valid settings.
    from pipedai.sql import reason

    try:
        return probe.look()
    except DatabaseError as error:
        if not migrated:
            return checks.Warning("Unknown until the migrations are applied.", id=UNKNOWN)
        return Error(
            f"The database refused to answer: {reason(error)}.",
            hint="Bring the schema up to date with `manage.py release`, or see the database's log.",
        )


# --- The rules

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
        crypto.masters()
    except ValueError as error:
        return f"{str(error).removesuffix('.')}: {_SET_MASTER_KEYS}."
    return None


@rule("pipedai.E002")
def master_keys() -> str | None:
    """MASTER_KEYS must be readable, and each key secret and random."""
    keys = crypto.masters()
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
    dotenv = env.BASE_DIR / ".env"
    files = [dotenv] if dotenv.is_relative_to(settings.DATA_DIR) else []
    files += settings.DATA_DIR.iterdir() if settings.DATA_DIR.is_dir() else ()
    for path in files:
        if _holds_a_key(path):
            return (
                f"{path} keeps a key beside the embedded database that it protects:"
                f" move it out of {settings.DATA_DIR}, or change PIPEDAI_DATA_DIR."
            )
    return None


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


# The networks that a webhook must never reach: those of this machine itself, and of the services that give credentials
# to machines in a cloud.
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
_HOST = r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
_HOST_PATTERN = re.compile(rf"\.?{_HOST}", re.IGNORECASE)
# The form of an `Origin` header that browsers send: scheme, host and port, but no path and no slash at the end.
_HTTPS_ORIGIN = re.compile(rf"https://{_HOST}(?::[0-9]{{1,5}})?", re.IGNORECASE)


@rule("pipedai.E004")
def allowed_hosts() -> str | None:
    """ALLOWED_HOSTS must name our own hosts. It must not contain a wildcard that allows all hosts."""
    if not settings.ALLOWED_HOSTS or "*" in settings.ALLOWED_HOSTS:
        return (
            "ALLOWED_HOSTS is empty or holds *:"
            " set it to the names that clients reach the API by, such as api.example.com."
        )
    for host in settings.ALLOWED_HOSTS:
        if not _HOST_PATTERN.fullmatch(host):
            return (
                f"ALLOWED_HOSTS holds {host}, which is no host name:"
                " set it to names alone, such as api.example.com."
            )
    return None


@rule("pipedai.E005")
def allowed_origins() -> str | None:
    """ALLOWED_ORIGINS must name each origin in full, with https, because its pages may use the session cookie."""
    for origin in settings.ALLOWED_ORIGINS:
        if not _HTTPS_ORIGIN.fullmatch(origin):
            return (
                f"ALLOWED_ORIGINS holds {origin}, which is no https origin:"
                " set it to those of the dashboards, such as https://app.example.com."
            )
    return None


@rule("pipedai.E006")
def cookie_samesite() -> str | None:
    """COOKIE_SAMESITE may be None only if ALLOWED_ORIGINS names the other sites that send the cookie."""
    if settings.COOKIE_SAMESITE == "None" and not settings.ALLOWED_ORIGINS:
        return (
            "COOKIE_SAMESITE=None lets every site send the cookie along:"
            " set ALLOWED_ORIGINS to those that need it, or COOKIE_SAMESITE to Lax."
        )
    return None


@rule("pipedai.E018", READABLE)
def issuer() -> str | None:
    """OIDC_ISSUER needs the settings of the OpenID client, and these settings and OIDC_ONLY need OIDC_ISSUER."""
    given = (settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET)
    if any(given) != all(given) or (settings.OIDC_ONLY and not all(given)):
        return "OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET go together, and OIDC_ONLY needs them: set all."
    return None


def url_rules(check_id: str, setting: str, advice: str, *, needed: bool = False) -> None:
    """Registers two rules: the setting, if not empty, is a URL, and in production it is one with https. Links with
    tokens begin with this URL, or its answers say who signs in.
    """

    def broken(*schemes: str) -> str | None:
        text = getattr(settings, setting)
        try:
            url = urlsplit(text)
            sane = url.scheme in schemes and url.hostname and (url.port is None or url.port > 0)
        except ValueError:
            sane = False
        if sane and "@" not in url.netloc and not url.query and not url.fragment:
            return None
        return f"{setting} is no {' or '.join(schemes)} URL: {advice}." if text or needed else None

    rule(check_id, READABLE)(partial(broken, "http", "https"))
    rule(check_id)(partial(broken, "https"))


url_rules(
    "pipedai.E010",
    "PUBLIC_URL",
    "set it to where clients reach the service, such as https://api.example.com",
    needed=True,
)
url_rules(
    "pipedai.E017",
    "DASHBOARD_URL",
    "set it to one such as https://app.example.com, or leave it out",
)
url_rules(
    "pipedai.E018",
    "OIDC_ISSUER",
    "set it to what the provider calls itself, such as https://login.example.com",
)


@rule("pipedai.E011", READABLE)
def unreadable_trusted_proxies() -> str | None:
    try:
        parse_networks(settings.TRUSTED_PROXIES)
    except ValueError as error:
        return str(error)
    return None


@rule("pipedai.E011")
def trusted_proxies() -> str | None:
    """TRUSTED_PROXIES must name only proxies. It must not name a network that contains all clients."""
    networks = parse_networks(settings.TRUSTED_PROXIES)
    if any(network.prefixlen == 0 for network in networks):
        return (
            "TRUSTED_PROXIES holds every address, so that each client may choose its own:"
            " set it to the networks of your proxies alone."
        )
    return None


@rule("pipedai.E009", READABLE)
def unreadable_webhook_networks() -> str | None:
    for text in settings.WEBHOOK_ALLOWED_NETWORKS:
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError:
            return (
                f"WEBHOOK_ALLOWED_NETWORKS holds {text}, which is no network:"
                " set it to networks such as 10.20.0.0/16."
            )
    return None


@rule("pipedai.E009")
def webhook_networks() -> str | None:
    """WEBHOOK_ALLOWED_NETWORKS must allow neither this machine nor a cloud's service for credentials."""
    for text in settings.WEBHOOK_ALLOWED_NETWORKS:
        network = _unmapped(ipaddress.ip_network(text, strict=False))
        for kind, members in _NEVER_FOR_WEBHOOKS.items():
            if any(network.overlaps(ipaddress.ip_network(member)) for member in members):
                return (
                    f"WEBHOOK_ALLOWED_NETWORKS holds {text}, which has {kind} addresses in it:"
                    " set it to the receivers' networks alone."
                )
    return None


def _unmapped(network: Network) -> Network:
    """Returns the IPv4 network of an IPv4-mapped IPv6 network: 10.0.0.0/8 for `::ffff:10.0.0.0/104`."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED_IPV4):
        address = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED_IPV4.prefixlen))
    return network


@rule("pipedai.E013")
def python_debug() -> str | None:
    """Python's asyncio debug mode must be off, because it logs calls together with their values."""
    for name in ("PYTHONASYNCIODEBUG", "PYTHONDEVMODE"):
        if os.environ.get(name):
            return f"{name} logs values that the program holds: unset it."
    if sys.flags.dev_mode:
        return "Python's -X dev logs values that the program holds: leave it out."
    return None


_LOCAL = frozenset({"localhost", "localhost.localdomain"})


@rule("pipedai.E015", READABLE)
def unreadable_sender() -> str | None:
    """EMAIL_FROM must be one address, alone or as `Name <address>`, in one line."""
    _, address = parseaddr(settings.EMAIL_FROM)
    try:
        validate_email(address)
    except ValidationError:
        sane = False
    else:
        # `parseaddr` alone is too lenient: it reads the first of several addresses, and drops what it does not
        # understand.
        sane = settings.EMAIL_FROM.isprintable() and settings.EMAIL_FROM.count("@") == 1
    if sane:
        return None
    return "EMAIL_FROM is no address: set it to one such as PipedAI <noreply@example.com>."


@rule("pipedai.E015")
def sender() -> str | None:
    """EMAIL_FROM must be an address of the operator's domain if mails are sent."""
    _, address = parseaddr(settings.EMAIL_FROM)
    if settings.EMAIL_URL and address.rpartition("@")[2].lower() in _LOCAL:
        return (
            "EMAIL_URL is set and EMAIL_FROM is not, or names this machine:"
            " set it to an address that your mail server sends for, such as noreply@example.com."
        )
    return None


@rule("pipedai.E016")
def encrypted_login() -> str | None:
    """The mail server's password must not cross a network unencrypted."""
    if not settings.EMAIL_URL:
        return None
    config = env.email_config(settings.EMAIL_URL)
    encrypted = config["use_tls"] or config["use_ssl"]
    if encrypted or not config["password"] or _is_this_machine(config["host"]):
        return None
    return (
        "EMAIL_URL sends its password in clear:"
        " set it to a URL that begins with smtp+tls:// or smtp+ssl://."
    )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in _LOCAL

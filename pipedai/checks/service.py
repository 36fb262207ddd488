"""The rules for how the service runs: without debugging aids, with all protections on, and with a sender for mails."""

import ipaddress
import os
import sys
from email.utils import parseaddr

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from pipedai import env
from pipedai.checks import READABLE, rule


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
    if unreadable_sender():
        return None
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

"""Decides which addresses and ports an outgoing request may reach (SPEC §7)."""

import socket
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any
from urllib.parse import unquote, urlsplit

import psutil
from django.conf import settings
from ssrfguard import DEFAULT_DENIED, AddressTable, Block, BlockedAddressError, Policy, Reach

from pipedai.api.outside_urls import check_url

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

PORTS = frozenset({80, 443})
_MORE_DENIED = (
    # Azure's service for data about each machine, at a public address. Webhooks must not read it.
    "168.63.129.16/32",
    # IPv6 addresses that contain an IPv4 address in the form of SIIT (RFC 7915). They could hide a forbidden IPv4
    # address.
    "::ffff:0:0:0/96",
)
# The most addresses of a name to which a request tries to connect. Each try may take the whole time-out of a
# connection.
CONNECTION_ATTEMPTS = 2

# For how many seconds this machine's own addresses are remembered. Reading them takes a tenth of a request's CPU time.
_KNOWN_SECONDS = 10
_LOOPBACK_NAMES = frozenset(
    {"localhost", "localhost.localdomain", "localhost6", "localhost6.localdomain6", "ip6-localhost"}
    | {"ip6-loopback", "localhost4", "localhost4.localdomain4"}
)
# Characters that IDNA, the standard for names in Unicode, reads as dots.
_DOTS = str.maketrans({"。": ".", "．": ".", "｡": "."})


def policy() -> Policy:
    """Requests may go to the public internet and to the networks in the settings, but not to this machine."""
    allowed, age = tuple(settings.WEBHOOK_ALLOWED_NETWORKS), int(time.monotonic() // _KNOWN_SECONDS)
    return _policy(allowed, _own_addresses(psutil.net_if_addrs, age))


def may_use_port(port: int, addresses: Iterable[IPAddress]) -> bool:
    if port in PORTS:
        return True
    allowed = policy().allowed_networks
    return all(any(address in network for network in allowed) for address in addresses)


def target_problem(url: str) -> str | None:
    """Returns None for a URL to which a request may be sent, in production with https alone, or else a sentence on what
    is wrong with it (SPEC §7).
    """
    if problem := check_url(url, https_only=settings.PRODUCTION):
        return problem
    if names_forbidden_address(url):
        return (
            "Must not name a private or reserved address that is not in WEBHOOK_ALLOWED_NETWORKS."
        )
    if names_forbidden_port(url):
        return "Its port must be 80 or 443, unless WEBHOOK_ALLOWED_NETWORKS has its address."
    return None


def names_forbidden_port(url: str) -> bool:
    """Whether no request would ever go to the URL's port. A host's name is not resolved: while WEBHOOK_ALLOWED_NETWORKS
    names a network, its address may lie there, so any port is good.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = _plain(parts.hostname or "")
    address = IPv4Address("127.0.0.1") if _is_loopback_name(host) else _literal(host)
    if address is None:
        return port not in PORTS and not policy().allowed_networks
    return not may_use_port(port, [address])


def names_forbidden_address(url: str) -> bool:
    """Whether the URL's host spells a forbidden address. A name is checked when a request connects."""
    host = _plain(urlsplit(url).hostname or "")
    if _is_loopback_name(host):
        return not _permits(IPv4Address("127.0.0.1"))
    address = _literal(host)
    return address is not None and not _permits(address)


def _is_loopback_name(host: str) -> bool:
    return host in _LOOPBACK_NAMES or host.endswith(".localhost")


def _permits(address: IPAddress) -> bool:
    try:
        policy().check_address(address)
    except BlockedAddressError:
        return False
    return True


def _plain(host: str) -> str:
    folded = unicodedata.normalize("NFKC", unquote(host)).translate(_DOTS)
    # Characters of the Unicode category Cf are invisible, and resolvers drop them from a name, so they are dropped
    # before the check too.
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return visible.lower().rstrip(".")


def _literal(host: str) -> IPAddress | None:
    """Returns the address that `host` spells, or None: IPv6 with or without a zone, or IPv4 in one to four decimal,
    octal or hexadecimal parts, as inet_aton(3) reads it.
    """
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):  # `inet_aton` can't read this host.
        return None


@lru_cache(maxsize=8)
def _policy(allowed: tuple[str, ...], own: frozenset[str]) -> Policy:
    denied = [
        Block(ip_network(address), "This machine or its cloud", "-", Reach.DENIED)
        for address in (*_MORE_DENIED, *sorted(own))
    ]
    return Policy(
        denied_networks=AddressTable((*DEFAULT_DENIED.blocks, *denied)),
        allowed_networks=tuple(_network(text) for text in allowed),
        # The library ssrfguard can't allow ports for some networks only. If the settings allow any network, ssrfguard
        # is told to allow all ports. `may_use_port` then refuses ports other than 80 and 443 outside the allowed
        # networks.
        allowed_ports=frozenset(range(1, 65536)) if allowed else PORTS,
        max_connection_attempts=CONNECTION_ATTEMPTS,
    )


def _network(text: str) -> IPNetwork:
    return ip_network(text, strict=False)


@lru_cache(maxsize=1)
def _own_addresses(read: Callable[[], Mapping[str, Any]], _age: int) -> frozenset[str]:
    """Returns the public addresses of this machine, where our servers listen; reads them anew for each `_age`."""
    return frozenset(
        address.address
        for addresses in read().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
        and ip_address(address.address.partition("%")[0]).is_global
    )

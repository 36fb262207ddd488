"""Finds out who is calling through the proxies that the operator trusts (SPEC §2)."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# The peer of a Unix socket is this machine.
LOCAL = "127.0.0.1"


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """The networks of TRUSTED_PROXIES. Raises ValueError with a sentence for what is none."""
    networks = []
    for word in words:
        try:
            networks.append(ip_network(word, strict=False))
        except ValueError:
            raise ValueError(
                f"TRUSTED_PROXIES must list IP addresses or networks; {word!r} is neither."
            ) from None
    return tuple(networks)


def client_address(
    peer: str | None, forwarded_for: str | None, trusted_proxies: Sequence[Network]
) -> str:
    """The rightmost hop of `X-Forwarded-For` that is no trusted proxy; the peer if that is none.

    A hop that is no address ends the search: whoever passed it on is then the client. When every
    hop is trusted, it is the first. The answer is normalised: no port, no zone, and IPv4 as IPv4.
    """
    nearest = _address(peer or LOCAL)
    if nearest is None:
        return LOCAL
    for hop in reversed((forwarded_for or "").split(",")):
        if not _is_in(nearest, trusted_proxies):
            break
        address = _address(hop)
        if address is None:
            break
        nearest = address
    return str(nearest)


def is_trusted_proxy(peer: str | None, trusted_proxies: Sequence[Network]) -> bool:
    """Whether what the peer says of the original request (its scheme) is to be believed."""
    address = _address(peer or LOCAL)
    return address is not None and _is_in(address, trusted_proxies)


def network_of(address: str) -> str:
    """What one subscriber has: the address itself, or the /64 of an IPv6 address. What is no address is itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


# Connections are kept open, and the same few addresses come with every request.
@lru_cache(maxsize=256)
def _address(text: str) -> Address | None:
    """The address in a hop: also `[::1]:80`, `192.0.2.1:80` and `fe80::1%eth0`."""
    text = text.strip().strip('"')
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address

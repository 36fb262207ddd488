"""Finds the address of a client that calls through proxies which the operator trusts."""

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

# The address of a peer on a Unix socket, which has none. Such a peer runs on this machine.
LOCAL = "127.0.0.1"


def parse_networks(words: Iterable[str]) -> tuple[Network, ...]:
    """Returns the networks of TRUSTED_PROXIES. Raises ValueError with a sentence for a word that names no network."""
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
    """Returns the client's address: the rightmost hop of `X-Forwarded-For` that is no trusted proxy, or the peer, if
    the peer is no trusted proxy itself. A hop that is no address ends the search, and the proxy that passed it on
    counts. The result has no port and no zone.
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
    """If so, we believe its headers about the original request, such as the client's address and the scheme."""
    address = _address(peer or LOCAL)
    return address is not None and _is_in(address, trusted_proxies)


@lru_cache(maxsize=256)
def network_of(address: str) -> str:
    """Returns an IPv4 address itself, and the /64 network of an IPv6 address, which one subscriber usually has."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network(f"{parsed}/64", strict=False)) if parsed.version == 6 else str(parsed)


def _is_in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


# The cache helps because clients keep their connections open, so that the same few addresses are parsed again and
# again.
@lru_cache(maxsize=256)
def _address(text: str) -> Address | None:
    """Returns the address in one hop of `X-Forwarded-For`, which may have a port or a zone, or None."""
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

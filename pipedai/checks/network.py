"""The rules for who may call us, which proxies we trust, and which addresses webhooks may reach."""

import ipaddress
import re
from urllib.parse import urlsplit

from django.conf import settings

from pipedai.checks import READABLE, rule
from pipedai.client_address import Network, parse_networks

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


@rule("pipedai.E010", READABLE)
def unreadable_public_url() -> str | None:
    if _leads_to_a_server(settings.PUBLIC_URL, ("http", "https")):
        return None
    return (
        "PUBLIC_URL is not an http or https URL:"
        " set it to where clients reach the service, such as http://localhost:8000."
    )


def _leads_to_a_server(text: str, schemes: tuple[str, ...]) -> bool:
    try:
        url = urlsplit(text)
        sane = url.scheme in schemes and url.hostname and (url.port is None or url.port > 0)
    except ValueError:
        return False
    return bool(sane) and "@" not in url.netloc and not url.query and not url.fragment


@rule("pipedai.E017")
def dashboard_url() -> str | None:
    """DASHBOARD_URL must lead to a server over TLS, because the links in mails begin with it and carry tokens."""
    if unreadable_dashboard_url():
        return None
    if not settings.DASHBOARD_URL or _leads_to_a_server(settings.DASHBOARD_URL, ("https",)):
        return None
    return "DASHBOARD_URL is no https URL: set it to one such as https://app.example.com, or leave it out."


@rule("pipedai.E017", READABLE)
def unreadable_dashboard_url() -> str | None:
    url = settings.DASHBOARD_URL
    if not url or _leads_to_a_server(url, ("http", "https")):
        return None
    return "DASHBOARD_URL is no http or https URL: set it to one such as https://app.example.com, or leave it out."


@rule("pipedai.E010")
def public_url() -> str | None:
    """PUBLIC_URL must lead to us over TLS, because the links that we hand out begin with it."""
    if unreadable_public_url():
        return None
    if not _leads_to_a_server(settings.PUBLIC_URL, ("https",)):
        return (
            "PUBLIC_URL is not set to an https URL:"
            " set it to where clients reach the service, such as https://api.example.com."
        )
    return None


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
    if unreadable_trusted_proxies():
        return None
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
    if unreadable_webhook_networks():
        return None
    for text in settings.WEBHOOK_ALLOWED_NETWORKS:
        network = _unmapped(ipaddress.ip_network(text, strict=False))
        for kind, members in _NEVER_FOR_WEBHOOKS.items():
            if any(_overlap(network, ipaddress.ip_network(member)) for member in members):
                return (
                    f"WEBHOOK_ALLOWED_NETWORKS holds {text}, which has {kind} addresses in it:"
                    " set it to the receivers' networks alone."
                )
    return None


def _unmapped(network: Network) -> Network:
    """Returns the IPv4 network that a mapped one means: `::ffff:10.0.0.0/104` is 10.0.0.0/8."""
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED_IPV4):
        address = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((address, network.prefixlen - _MAPPED_IPV4.prefixlen))
    return network


def _overlap(one: Network, other: Network) -> bool:
    if isinstance(one, ipaddress.IPv4Network):
        return isinstance(other, ipaddress.IPv4Network) and one.overlaps(other)
    return isinstance(other, ipaddress.IPv6Network) and one.overlaps(other)

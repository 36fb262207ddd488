"""Chooses the environment variables that a run's program gets, so that it does not get this machine's secrets."""

from __future__ import annotations

import os
from collections.abc import Iterable

# Every run's program gets these variables if they are set: it needs them to find programs, its home, the language and
# the network.
ALLOWED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "NO_COLOR", "TMPDIR"),
        *("LANG", "LANGUAGE", "TZ"),
        *("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "no_proxy", "all_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS"),
        *("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        *("CLAUDE_CONFIG_DIR", "ANTHROPIC_BASE_URL"),
    }
)
ALLOWED_PREFIX = "LC_"
PROXIES = frozenset(
    {
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy"),
    }
)
GATEWAY_HOST = "127.0.0.1"


def allowed(extra: Iterable[str] = ()) -> dict[str, str]:
    """Return the variables of this process's environment whose name is allowed or listed in `extra`.

    If one of them names a proxy, NO_PROXY and no_proxy are set so that the program does not use the proxy for calls of
    the run's gateway, the server on this machine that leads to the run's MCP server.
    """
    names = ALLOWED.union(extra)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name in names or name.startswith(ALLOWED_PREFIX)
    }
    if not PROXIES.isdisjoint(environment):
        for name in ("NO_PROXY", "no_proxy"):
            # Some programs read NO_PROXY and others no_proxy. If only one of them is set, the other one gets its value.
            exceptions = environment.get(name) or environment.get(name.swapcase(), "")
            environment[name] = _with_gateway(exceptions)
    return environment


def _with_gateway(exceptions: str) -> str:
    """Add the run's gateway to a NO_PROXY list of hosts: it is a server on this machine, which no proxy can reach."""
    hosts = [host.strip() for host in exceptions.split(",") if host.strip()]
    if GATEWAY_HOST in hosts or hosts == ["*"]:
        return exceptions
    return ",".join([*hosts, GATEWAY_HOST])

"""Starts a real OpenID provider (PyPI `oidc-provider-mock`) in a process of its own. Its people agree to everything."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from bin.ending import die_with_parent
from testing.processes.web_process import free_port
from testing.processes.worker_process import until


@dataclass(frozen=True)
class OpenIdProvider:
    """A provider with one client, which may use one redirect URI."""

    issuer: str
    client_id: str
    client_secret: str

    def settings(self, **more: str) -> dict[str, str]:
        """Returns the settings of a service whose people sign in here."""
        client = {"OIDC_CLIENT_ID": self.client_id, "OIDC_CLIENT_SECRET": self.client_secret}
        return {"OIDC_ISSUER": self.issuer, **client, **more}

    def add_person(self, sub: str, **claims: Any) -> None:
        """Makes an account there, or changes it."""
        answer = httpx.put(f"{self.issuer}/users/{quote(sub)}", json=claims)
        answer.raise_for_status()

    def agree(self, url: str, sub: str) -> str:
        """Signs in there as a browser would that was led to the URL, and returns where it is sent back to."""
        answer = httpx.post(url, data={"sub": sub})
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]


@contextmanager
def openid_provider(directory: Path, redirect_uri: str) -> Iterator[OpenIdProvider]:
    """Runs the provider for the time of the block. It logs into the directory."""
    port = free_port()
    # It is another site than the services of tests, which are at 127.0.0.1.
    issuer = f"http://localhost:{port}"
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "oidc_provider_mock",
        "-p",
        str(port),
        "-r",
        "-n",
    ]
    with (directory / "provider.out").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            command,
            env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    try:
        until(lambda: _answers(issuer, process))
        body = {"redirect_uris": [redirect_uri]}
        client = httpx.post(f"{issuer}/oauth2/clients", json=body).raise_for_status().json()
        yield OpenIdProvider(issuer, client["client_id"], client["client_secret"])
    finally:
        process.kill()
        process.wait()


def _answers(issuer: str, process: "subprocess.Popen[bytes]") -> bool:
    assert process.poll() is None, "the provider has ended"
    try:
        return bool(httpx.get(f"{issuer}/jwks").json())
    except (httpx.TransportError, json.JSONDecodeError):
        return False

"""The watch over the network sees whatever a program tries to reach beside loopback addresses."""

from __future__ import annotations

import subprocess
import sys

from .network import LoopbackNetwork


def run_inside(network: LoopbackNetwork, code: str) -> str:
    """Run Python code inside the network, and return what it prints."""
    done = subprocess.run(
        network.inside([sys.executable, "-c", f"import socket\n{code}"]),
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return done.stdout


def test_it_sees_connections_and_questions_for_names(network: LoopbackNetwork) -> None:
    run_inside(
        network,
        """
for family, address in ((socket.AF_INET, "192.0.2.7"), (socket.AF_INET6, "2001:db8::7")):
    with socket.socket(family) as trying:
        trying.connect_ex((address, 443))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sending:
    sending.sendto(b"hello", ("192.0.2.8", 9))
    # A question as systemd-resolved would get it.
    sending.sendto(bytes(12) + b"\\x03api\\x07example\\x00", ("127.0.0.53", 53))
""",
    )
    assert sorted(network.strangers()) == [
        "DNS for api.example",
        "TCP to 192.0.2.7 port 443",
        "TCP to 2001:db8::7 port 443",
        "UDP to 192.0.2.8 port 9",
    ]
    assert network.strangers() == []


def test_loopback_is_no_stranger(network: LoopbackNetwork) -> None:
    with network.listener() as listener:
        port = listener.getsockname()[1]
        said = run_inside(
            network,
            f"""
for address in ("127.0.0.1", "127.9.9.9"):
    print(socket.socket().connect_ex((address, {port})) == 0)
print(socket.socket(socket.AF_INET6).connect_ex(("::1", {port})) == 0)
""",
        )
    assert said.split() == ["True", "False", "False"]
    assert network.strangers() == []


def test_who_is_inside_reaches_nobody_outside(network: LoopbackNetwork) -> None:
    with network.listener() as inside:
        port = inside.getsockname()[1]
        # This process is outside.
        outside = f"print(socket.socket().connect_ex(('127.0.0.1', {port})) == 0)"
        assert run_inside(network, outside) == "True\n"
        done = subprocess.run(
            [sys.executable, "-c", f"import socket\n{outside}"], stdout=subprocess.PIPE, text=True
        )
        assert done.stdout == "False\n"

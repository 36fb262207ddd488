"""Outgoing requests reach only public addresses on two ports, and end in time."""

import socket
import threading
import time
from ipaddress import ip_address
from types import SimpleNamespace

import psutil
import pytest

from pipedai.outgoing import posts
from pipedai.outgoing.posts import names_forbidden_address, names_forbidden_port, post
from testing.probes.shapes import invalid
from testing.processes.webhook_receiver import Receiver
from testing.world.cases import cases

LOOPBACK = ("127.0.0.0/8",)
NO_ADDRESS = "address not allowed (WEBHOOK_ALLOWED_NETWORKS)"

# Spellings of addresses that a webhook must not reach.
HOSTILE = {
    "dotted": "http://127.0.0.1/",
    "decimal": "http://2130706433/",
    "hex": "http://0x7f000001/",
    "hex-parts": "http://0x7f.0x0.0x0.0x1/",
    "octal": "http://017700000001/",
    "octal-parts": "http://0177.0.0.01/",
    "short": "http://127.1/",
    "three-parts": "http://127.0.1/",
    "zero": "http://0/",
    "unspecified": "http://0.0.0.0/",
    "trailing-dot": "http://127.0.0.1./",
    "hex-trailing-dot": "http://0x7f000001./",
    "full-width": "http://①②⑦.⓪.⓪.①/",
    "ideographic-dots": "http://127。0。0。1/",
    "percent": "http://%31%32%37.0.0.1/",
    "soft-hyphen": "http://127.0.0\u00ad.1/",
    "localhost": "http://localhost/",
    "localhost-upper": "http://LocalHost/",
    "localhost-dot": "http://localhost./",
    "below-localhost": "http://api.localhost/",
    "ipv6": "http://[::1]/",
    "ipv6-long": "http://[0:0:0:0:0:0:0:1]/",
    "ipv6-unspecified": "http://[::]/",
    "mapped": "http://[::ffff:127.0.0.1]/",
    "mapped-hex": "http://[::ffff:7f00:1]/",
    "compatible": "http://[::127.0.0.1]/",
    "nat64": "http://[64:ff9b::10.0.0.1]/",
    "6to4": "http://[2002:7f00:1::]/",
    "private-10": "http://10.1.2.3/",
    "private-172": "http://172.16.0.1/",
    "private-192": "http://192.168.1/",
    "shared": "http://100.64.0.1/",
    "link-local": "http://169.254.1.1/",
    "link-local-6": "http://[fe80::1]/",
    "link-local-zone": "http://[fe80::1%25eth0]/",
    "unique-local": "http://[fd00::1]/",
    "multicast": "http://224.0.0.1/",
    "multicast-6": "http://[ff02::1]/",
    "broadcast": "http://255.255.255.255/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "metadata-decimal": "http://2852039166/",
    "metadata-6": "http://[fd00:ec2::254]/",
    "metadata-alibaba": "http://100.100.100.200/",
    "metadata-azure": "http://168.63.129.16/",
    "metadata-azure-hex": "http://0xa83f8110/",
    "metadata-azure-mapped": "http://[::ffff:168.63.129.16]/",
    "translated": "http://[::ffff:0:127.0.0.1]/",
}
hostile = pytest.mark.parametrize("url", HOSTILE.values(), ids=HOSTILE)


def send(url: str, *, timeout: float = 5.0):
    return post(url, headers={"X-Test": "1"}, body=b"{}", timeout=timeout)


@pytest.fixture
def names(monkeypatch):
    """Replaces the resolver: the test sets what names resolve to, and `asked` holds every look-up."""
    known = SimpleNamespace(found={}, asked=[])

    def look_up(host, port, *args):
        known.asked.append(host)
        if host not in known.found:
            return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
        return [
            answer
            for address in known.found[host]
            for answer in socket.getaddrinfo(address, port, 0, socket.SOCK_STREAM)
        ]

    monkeypatch.setattr(posts, "look_up", look_up)
    return known


# --- Checks when a URL is saved


@hostile
def test_a_url_that_names_a_forbidden_address_is_seen(url):
    assert names_forbidden_address(url)


@cases(
    "url",
    [
        "https://hooks.example/x",
        "https://1.1.1.1/",
        "https://[2606:4700:4700::1111]/",
        "https://localhost.example/",
        "https://127.0.0.1.example.com/",
        "https://bücher.example/",
        "https://0xcafe.example/",
        "https://1.1.1.1%00/",
    ],
)
def test_other_urls_are_not(url):
    assert not names_forbidden_address(url)


def test_an_allowed_network_is_no_longer_forbidden(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("10.20.0.0/16", "127.0.0.0/8")
    assert not names_forbidden_address("http://10.20.1.1/")
    assert not names_forbidden_address("http://localhost:8080/")
    assert names_forbidden_address("http://10.21.1.1/")


@cases(
    ("url", "forbidden"),
    [
        ("https://hooks.example/x", False),
        ("http://hooks.example/x", False),
        ("https://hooks.example:443/", False),
        ("https://hooks.example:80/", False),
        ("https://hooks.example:8443/", True),
        ("https://hooks.example:22/", True),
        ("https://1.1.1.1:8443/", True),
        ("https://[2606:4700:4700::1111]:8443/", True),
    ],
)
def test_a_url_with_a_port_that_is_never_connected_to_is_seen(url, forbidden):
    assert names_forbidden_port(url) is forbidden


def test_within_an_allowed_network_any_port_is_allowed_also_for_a_name_that_may_lie_there(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("10.20.0.0/16",)
    assert not names_forbidden_port("http://10.20.1.1:8080/")
    assert not names_forbidden_port("http://hooks.example:8080/")
    assert names_forbidden_port("http://1.1.1.1:8080/")
    assert names_forbidden_port("http://localhost:8080/")


@pytest.mark.parametrize("url", ["http://127.1/", "http://localhost:9/", "http://[::ffff:a00:1]/"])
@pytest.mark.parametrize("method", ["post", "patch"])
def test_it_is_a_field_error_of_a_trigger(cast, method, url):
    body = {"webhookUrl": url}
    path = f"/api/v1/triggers/{cast.trigger_id}"
    if method == "post":
        path = f"/api/v1/environments/{cast.environment.id}/triggers"
        body |= {"name": "New", "prompt": "Work.", "mcpUrl": "https://mcp.example/"}
    response = getattr(cast.client(cast.admin), method)(path, body)
    assert response.status_code == 400
    assert response.json() == invalid(
        {
            "webhookUrl": [
                "Must not name a private or reserved address that is not in WEBHOOK_ALLOWED_NETWORKS."
            ]
        }
    )


# --- Checks when a request connects


@hostile
def test_a_hostile_url_is_never_connected_to(names, monkeypatch, url):
    for name in ("localhost", "localhost.", "api.localhost", "0x7f000001."):
        names.found[name] = ["127.0.0.1"]
    monkeypatch.setattr(socket.socket, "connect", _never)
    answer = send(url)
    assert answer.status_code is None
    assert answer.error in (NO_ADDRESS, "not a URL")


def _never(*_):
    raise AssertionError("it connected")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1"],
        ["169.254.169.254"],
        ["168.63.129.16"],
        ["fd00::1"],
        ["::ffff:192.168.0.1"],
        ["1.1.1.1", "10.0.0.1"],
    ],
    ids="-".join,
)
def test_a_name_that_resolves_to_a_forbidden_address_is_not_connected_to(
    names, monkeypatch, addresses
):
    names.found["rebind.example"] = addresses
    monkeypatch.setattr(socket.socket, "connect", _never)
    answer = send("http://rebind.example/")
    assert answer.error == NO_ADDRESS
    assert names.asked == ["rebind.example"]


def test_this_machines_own_public_addresses_are_refused(names, monkeypatch):
    own = SimpleNamespace(family=socket.AF_INET, address="8.8.4.4")
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: {"eth0": [own]})
    monkeypatch.setattr(socket.socket, "connect", _never)
    names.found["us.example"] = ["8.8.4.4"]
    assert send("http://us.example/").error == NO_ADDRESS


def test_the_name_is_looked_up_once_and_that_address_connected_to(
    names, settings, receiver: Receiver
):
    names.found["hooks.example"] = ["127.0.0.1"]
    answer = send(f"http://hooks.example:{receiver.port}/")
    assert answer.status_code == 204
    assert names.asked == ["hooks.example"]
    assert receiver.received[0].headers["Host"] == f"hooks.example:{receiver.port}"


def test_other_ports_are_for_allowed_networks_alone(names, settings, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", _never)
    names.found["hooks.example"] = ["1.1.1.1"]
    assert send("http://hooks.example:8080/").error == NO_ADDRESS
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    assert send("http://hooks.example:8080/").error == "port not allowed (WEBHOOK_ALLOWED_NETWORKS)"


def test_no_proxy_of_the_environment_is_used(monkeypatch, receiver: Receiver):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert send(receiver.url()).status_code == 204


@cases("url", ["ftp://x.example/", "http:///", "nonsense", "http://a b/"])
def test_what_is_no_url_is_a_failed_attempt(url):
    answer = send(url)
    assert (answer.status_code, answer.error is None) == (None, False)


# --- Time and size


class Raw:
    """Sends bytes to every client that connects: the first piece at once, the others one by one."""

    def __init__(self, first: bytes, data: bytes, every: float):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._first, self._data, self._every = first, data, every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        connection, _ = self._listener.accept()
        with connection:
            connection.recv(65536)
            try:
                connection.sendall(self._first)
                for byte in self._data:
                    connection.send(bytes([byte]))
                    if self._stop.wait(self._every):
                        return
            except OSError:
                return
            self._stop.wait(100)

    def close(self):
        self._stop.set()
        self._thread.join()
        self._listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "data", "status"),
    [(b"", b"", None), (HEAD[:-2], b"X-Drip: " + b"a" * 900, None), (HEAD, b"a" * 900, 200)],
    ids=["silent", "dripping-headers", "dripping-body"],
)
def test_nothing_stretches_the_time_that_a_request_takes(settings, first, data, status):
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    raw = Raw(first, data, 0.1)
    began = time.monotonic()
    answer = send(raw.url, timeout=2.0)
    assert time.monotonic() - began < 60
    assert (answer.status_code, answer.error) == (status, "timed out")
    assert answer.duration_ms >= 2000
    raw.close()


def test_a_name_server_that_hangs_does_not_either(monkeypatch):
    hang = threading.Event()
    monkeypatch.setattr(posts, "look_up", lambda *_: hang.wait(100))
    began = time.monotonic()
    answer = send("http://hooks.example/", timeout=0.6)
    hang.set()
    assert time.monotonic() - began < 60
    assert answer.error == "timed out"


def test_of_a_long_body_one_kib_is_read(receiver: Receiver):
    receiver.answer(200, b"x" * 5_000_000)
    answer = send(receiver.url())
    assert (answer.status_code, answer.error, len(answer.body)) == (200, None, 1024)


def test_a_compressed_body_stays_as_it_is(receiver: Receiver):
    receiver.answer(200, b"\x1f\x8bnot really", Content_Encoding="gzip")
    assert send(receiver.url()).body == b"\x1f\x8bnot really"


def test_no_error_names_an_address(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = LOOPBACK
    for url in ("http://127.0.0.1:1/", "http://10.0.0.1/", "https://127.0.0.1:1/"):
        error = send(url).error
        assert error
        assert not any(_is_address(word) for word in error.split())


def _is_address(word: str) -> bool:
    try:
        ip_address(word)
    except ValueError:
        return False
    return True

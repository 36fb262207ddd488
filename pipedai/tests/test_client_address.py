"""The client's address through trusted proxies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai.server.request_scope import client_address, is_trusted_proxy, parse_networks
from testing.world.cases import cases

PROXIES = parse_networks(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])


@cases(
    ("peer", "forwarded_for", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        # The peer is no trusted proxy, so its header is ignored.
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        # The hops on the left, which the client itself may have made up, are ignored.
        ("10.0.0.1", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, garbage", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, , 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", '"[2001:db8::1]:4711"', "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("fd00::1%eth0", "198.51.100.1", "198.51.100.1"),
        # A Unix socket's peer is this machine.
        (None, "198.51.100.1", "198.51.100.1"),
        ("", None, "127.0.0.1"),
    ],
)
def test_the_client_is_the_rightmost_hop_that_is_no_trusted_proxy(peer, forwarded_for, expected):
    assert client_address(peer, forwarded_for, PROXIES) == expected


def test_without_trusted_proxies_the_client_is_the_peer():
    assert client_address("127.0.0.1", "198.51.100.1", ()) == "127.0.0.1"


@given(st.text(), st.text())
def test_no_header_crashes_it(peer, forwarded_for):
    client_address(peer, forwarded_for, PROXIES)
    client_address("10.0.0.1", forwarded_for, PROXIES)


def test_only_a_trusted_proxy_is_believed_about_the_original_request():
    assert is_trusted_proxy("10.1.2.3", PROXIES)
    assert is_trusted_proxy(None, PROXIES)
    assert not is_trusted_proxy("11.1.2.3", PROXIES)
    assert not is_trusted_proxy("garbage", PROXIES)


def test_a_network_may_be_given_by_any_of_its_addresses():
    assert client_address("10.9.9.9", "1.2.3.4", parse_networks(["10.1.2.3/8"])) == "1.2.3.4"


def test_a_word_that_is_no_network_is_named_in_the_error():
    with pytest.raises(ValueError, match=r"TRUSTED_PROXIES must list .*'heroku' is neither"):
        parse_networks(["10.0.0.0/8", "heroku"])

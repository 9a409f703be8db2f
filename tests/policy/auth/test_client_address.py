"""Reading who the client is from what proxies tell, from the nearest to the first that nobody vouches for."""

import pytest

from edge.policy.auth.client_address import UNIX, Proxies

PROXIES = Proxies(["192.0.2.1", "10.0.0.0/8", "2001:db8::/32"])
PROXY = "192.0.2.1"

FORWARDED_FOR = {
    "198.51.100.7": "198.51.100.7",
    "203.0.113.9, 198.51.100.7": "198.51.100.7",  # the left one is the client's own word
    "198.51.100.7, 10.1.1.1, 10.2.2.2": "198.51.100.7",
    "10.3.3.3, 10.2.2.2": "10.3.3.3",  # all are trusted: the first of them is the client
    "198.51.100.7:4711": "198.51.100.7",
    "[2a00::7]:4711": "2a00::7",
    "2A00:0::7": "2a00::7",
    "::ffff:198.51.100.7": "198.51.100.7",
    "198.51.100.7, 2001:db8::1": "198.51.100.7",
    " ,, 198.51.100.7 ,": "198.51.100.7",
    # garbage: what is left of it is not believed
    "unknown": PROXY,
    "": PROXY,
    "198.51.100.7, unknown": PROXY,
    "198.51.100.7, unknown, 10.1.1.1": "10.1.1.1",
    "unknown, 198.51.100.7": "198.51.100.7",
    "1.2.3": PROXY,
    "1.2.3.4.5": PROXY,
    "198.51.100.7:port": PROXY,
    "fe80::1%eth0": PROXY,
    "for=198.51.100.7": PROXY,
    ", ".join(["198.51.100.7", *["10.1.1.1"] * 40]): "10.1.1.1",  # no more hops than anybody has
}

FORWARDED = {
    "for=198.51.100.7": "198.51.100.7",
    "For=198.51.100.7;proto=https;by=10.0.0.1": "198.51.100.7",
    'proto=https; for="198.51.100.7:4711"': "198.51.100.7",
    'for="[2a00::7]:4711"': "2a00::7",
    'for="[2a00::7]", for=10.0.0.1': "2a00::7",
    "for=203.0.113.9, for=198.51.100.7": "198.51.100.7",
    'for=198.51.100.7;host="a, b"': PROXY,
    'for=198.51.100.7;host="x, for=203.0.113.9"': PROXY,  # a client's Host, quoted by the proxy
    'for=198.51.100.7;host="x, for=203.0.113.9;a=\\""': PROXY,
    "for=unknown": PROXY,
    "for=_hidden": PROXY,
    "for=203.0.113.9;for=198.51.100.7": PROXY,
    "by=198.51.100.7": PROXY,
    "198.51.100.7": PROXY,
    'for="': PROXY,
}  # fmt: skip


@pytest.mark.parametrize(("header", "client"), FORWARDED_FOR.items())
def test_x_forwarded_for(header: str, client: str) -> None:
    assert PROXIES.client(PROXY, [header], []) == client


@pytest.mark.parametrize(("header", "client"), FORWARDED.items())
def test_forwarded(header: str, client: str) -> None:
    assert PROXIES.client(PROXY, [], [header]) == client


def test_two_headers_that_differ_are_not_believed() -> None:
    """One of them is the client's own, and which depends on the proxy."""
    assert PROXIES.client(PROXY, ["198.51.100.7"], ["for=203.0.113.9"]) == PROXY
    assert PROXIES.client(PROXY, ["198.51.100.7"], ["for=198.51.100.7"]) == "198.51.100.7"


@pytest.mark.parametrize("peer", ["198.51.100.1", "::ffff:198.51.100.1", UNIX, None])
def test_strangers_are_not_believed(peer: str | None) -> None:
    shown = peer and peer.removeprefix("::ffff:")
    assert PROXIES.client(peer, ["203.0.113.9"], ["for=203.0.113.9"]) == shown


def test_a_proxy_on_a_socket_for_both_families_is_known_by_its_ipv4_address() -> None:
    assert PROXIES.client("::ffff:192.0.2.1", ["198.51.100.7"], []) == "198.51.100.7"


def test_whoever_is_on_a_unix_socket_may_be_trusted() -> None:
    assert Proxies([UNIX]).client(UNIX, ["198.51.100.7"], []) == "198.51.100.7"
    assert Proxies([UNIX]).client("192.0.2.1", ["198.51.100.7"], []) == "192.0.2.1"

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.http.proxies import Proxies

PROXY = "10.0.0.1"
TRUSTED = Proxies(["10.0.0.0/8", "fd00::/8"])


def told(**values: str) -> list[tuple[bytes, bytes]]:
    return [(name.replace("_", "-").encode(), text.encode()) for name, text in values.items()]


def of(value: str) -> str:
    return TRUSTED.client(PROXY, told(x_forwarded_for=value))


def test_without_trusted_proxies_nobody_is_believed() -> None:
    headers = told(x_forwarded_for="192.0.2.1", forwarded="for=192.0.2.1")

    assert Proxies().client(PROXY, headers) == PROXY


def test_a_client_that_is_no_trusted_proxy_is_not_believed() -> None:
    assert TRUSTED.client("192.0.2.9", told(x_forwarded_for="198.51.100.1")) == "192.0.2.9"


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:4711", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:4711", "2001:db8::1"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1, 10.1.1.1,fd00::5", "192.0.2.1"),
        ("203.0.113.66, 192.0.2.1, 10.1.1.1", "192.0.2.1"),  # the first one a client made up
        ("10.1.1.1", "10.1.1.1"),
        ("192.0.2.1,", PROXY),
        ("unknown", PROXY),
        ("192.0.2.1, unknown, 10.1.1.1", "10.1.1.1"),
        ("<script>", PROXY),
        ("192.0.2.1\r\nx", PROXY),
        ("1.2.3.4.5", PROXY),
        ("999.1.1.1", PROXY),
        ("fe80::1%eth0", PROXY),
        ("[192.0.2.1", PROXY),
        ("", PROXY),
    ],
)
def test_the_nearest_address_that_is_not_trusted_is_the_client(value: str, client: str) -> None:
    assert of(value) == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=192.0.2.1", "192.0.2.1"),
        ('For="[2001:db8::1]:4711";proto=https;by=10.0.0.1', "2001:db8::1"),
        ("proto=https; for=192.0.2.1 ;host=a", "192.0.2.1"),
        ('for=192.0.2.1;host="a,b", for=10.1.1.1', "192.0.2.1"),
        ("for=_hidden", PROXY),
        ("for=unknown, for=10.1.1.1", "10.1.1.1"),
        ("by=192.0.2.1", PROXY),
        ("xfor=192.0.2.1", PROXY),
        ('for="192.0.2.1', PROXY),
        ('host="for=192.0.2.1"', PROXY),
        ('for="203.0.113.66, for=192.0.2.1', "192.0.2.1"),  # a client began a quote
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(value: str, client: str) -> None:
    assert TRUSTED.client(PROXY, told(forwarded=value)) == client


def test_two_headers_that_differ_are_not_believed_as_a_client_wrote_one() -> None:
    same = told(x_forwarded_for="192.0.2.1:1", forwarded="for=192.0.2.1")
    differing = told(x_forwarded_for="192.0.2.1", forwarded="for=203.0.113.66")

    assert TRUSTED.client(PROXY, same) == "192.0.2.1"
    assert TRUSTED.client(PROXY, differing) == PROXY


def test_lines_of_one_header_are_one_list() -> None:
    lines = [(b"x-forwarded-for", b"203.0.113.66"), (b"x-forwarded-for", b"192.0.2.1, 10.1.1.1")]

    assert TRUSTED.client(PROXY, lines) == "192.0.2.1"


def test_a_long_chain_is_read_no_further_than_sixteen_hops() -> None:
    chain = ", ".join(["192.0.2.1", *[f"10.0.1.{n}" for n in range(40)]])

    assert of(chain) == "10.0.1.24"


def test_a_peer_that_ipv6_carries_is_shown_and_trusted_as_ipv4() -> None:
    headers = told(x_forwarded_for="192.0.2.1")

    assert TRUSTED.client("::ffff:10.0.0.1", headers) == "192.0.2.1"
    assert TRUSTED.client("::ffff:192.0.2.7", headers) == "192.0.2.7"
    assert TRUSTED.client("", headers) == ""


@given(st.text(alphabet='[]:.,;="\\ for0129afx%\t', max_size=300))
def test_any_text_in_the_headers_gives_an_address(value: str) -> None:
    headers = [(b"forwarded", value.encode()), (b"x-forwarded-for", value.encode())]

    for one in (headers, headers[:1], headers[1:]):
        ipaddress.ip_address(TRUSTED.client(PROXY, one))

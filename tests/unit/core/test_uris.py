import re

import pytest

from notifier.core.uris import URI, is_reference


@pytest.mark.parametrize(
    "text",
    [
        "billing",
        "/orders/7",
        "./a:b",
        "a/b:c",
        "?q",
        "#f",
        "https://shop.example:8443/a?b=c/d?e#f",
        "//shop.example/a",
        "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "mailto:ann@example.org",
        "http://[::1]:80/",
        "file:///a",
        "//storage.googleapis.com/projects/_/buckets/b",
        "/a%20b",
    ],
)
def test_references_are_known(text: str) -> None:
    assert is_reference(text)


@pytest.mark.parametrize(
    "text",
    [
        "%zz",
        "%",
        "%2",
        "a b",
        "/Grüße",
        "1:2",
        ":a",
        "a\n",
        "a|b",
        "a^b",
        "<a>",
        '"',
        "a\\b",
        "`",
        "{a}",
        "a[b]",
        "//",
        "a:",
        "http://h:port/",
        "#a#b",
        "http://[::1",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_reference(text)


@pytest.mark.parametrize(
    ("text", "is_uri"),
    [("https://a.example/b", True), ("urn:a", True), ("/a", False), ("a", False)],
)
def test_a_uri_has_a_scheme(text: str, *, is_uri: bool) -> None:
    assert bool(re.match(URI, text)) is is_uri

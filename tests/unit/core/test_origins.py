import sys

import pytest

from notifier.core.origins import ENTRY, Origins, is_https, is_own


def headers(*lines: str) -> list[tuple[bytes, bytes]]:
    pairs = (line.split(": ", 1) for line in lines)
    return [(name.lower().encode(), value.encode()) for name, value in pairs]


@pytest.mark.parametrize(
    ("origin", "lines"),
    [
        ("https://app.example", ["Host: app.example"]),
        ("https://APP.example", ["Host: app.EXAMPLE"]),
        ("https://app.example", ["Host: app.example:443"]),
        ("https://app.example:443", ["Host: app.example"]),
        ("http://app.example", ["Host: app.example", "X-Forwarded-Proto: https"]),
        ("http://app.example:443", ["Host: app.example"]),
        ("https://app.example", ["Host: app.example:80"]),
        ("https://app.example:8443", ["Host: app.example:8443"]),
        ("http://app.example:8443", ["Host: app.example:8443", "X-Forwarded-Proto: https"]),
        ("https://app.example:8443", ["Host: app.example", "X-Forwarded-Port: 8443"]),
        ("https://app.example:8443", ["Host: app.example", "X-Forwarded-Port: 8443, 8000"]),
        ("https://app.example", ["Host: app.example:8080", "X-Forwarded-Port: 443"]),
        ("http://[::1]:8000", ["Host: [::1]:8000"]),
        ("https://app.example", ["Host: gateway:8000", "X-Forwarded-Host: app.example"]),
        ("https://app.example", ["Host: gateway", "X-Forwarded-Host: app.example, inner"]),
        ("https://app.example", ["Host: gateway", 'Forwarded: for=1.2.3.4;host="app.example"']),
    ],
)
def test_a_page_of_the_own_host_is_known(origin: str, lines: list[str]) -> None:
    assert is_own(origin, headers(*lines))
    assert Origins(["https://other.example"]).allow(origin, headers(*lines))


@pytest.mark.parametrize(
    ("origin", "lines"),
    [
        ("https://evil.example", ["Host: app.example"]),
        ("https://app.example.evil", ["Host: app.example"]),
        ("https://sub.app.example", ["Host: app.example"]),
        ("https://app.example:8443", ["Host: app.example"]),
        ("https://app.example", ["Host: app.example:8443"]),
        ("null", ["Host: null"]),
        ("https://", ["Host: "]),
        ("", ["Host: "]),
        ("https://app.example", []),
        ("https://user@app.example", ["Host: user@app.example"]),
        ("https://evil.example/app.example", ["Host: app.example"]),
        ("https://evil.example", ["Host: app.example", "X-Forwarded-Host: "]),
        ("https://evil.example", ["Host: app.example", "Forwarded: xhost=evil.example"]),
        ("https://evil.example", ["Host: app.example", 'Forwarded: by="host=evil.example"']),
        ("https://app.example:8443", ["Host: app.example", "X-Forwarded-Port: " + "9" * 5000]),
        ("https://" + "a" * 400, ["Host: " + "a" * 400]),
    ],
)
def test_a_page_of_another_host_or_port_is_foreign(origin: str, lines: list[str]) -> None:
    assert not is_own(origin, headers(*lines))


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://app.example", "https://app.example"),
        ("https://App.Example:443", "https://app.example"),
        ("http://app.example:80", "HTTP://APP.EXAMPLE"),
        ("https://*.app.example", "https://a.app.example"),
        ("https://*.app.example", "https://a.b.app.example"),
        ("https://*.app.example:443", "https://a.app.example"),
        ("https://pr-*.app.example", "https://pr-17.app.example"),
        ("https://app-git-*-team.host.example", "https://app-git-fix-1-team.host.example"),
        ("http://localhost:*", "http://localhost:3000"),
        ("http://localhost:*", "http://localhost"),
        ("http://[::1]:*", "http://[::1]:5173"),
        ("https://*.app.example:*", "https://a.app.example:8443"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_an_entry_lists_its_origins(entry: str, origin: str) -> None:
    assert ENTRY.fullmatch(entry)
    assert Origins([entry]).lists(origin)


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://app.example", "http://app.example"),
        ("https://app.example", "https://app.example:8443"),
        ("https://*.app.example", "https://app.example"),
        ("https://*.app.example", "https://evil-app.example"),
        ("https://*.app.example", "https://a.app.example.evil"),
        ("https://*.app.example", "https://evil.example#.app.example"),
        ("https://*.app.example", "https://evil.example/.app.example"),
        ("https://*.app.example", "https://a.appxexample"),
        ("https://*.app.example", "http://a.app.example"),
        ("https://*.app.example", "https://a.app.example:8443"),
        ("https://pr-*.app.example", "https://pr-1.evil.app.example"),
        ("http://localhost:*", "http://localhost.evil.example:3000"),
        ("http://localhost:*", "https://localhost:3000"),
        ("*", "https://any.example"),
    ],
)
def test_an_entry_lists_no_other_origin(entry: str, origin: str) -> None:
    assert not Origins([entry]).lists(origin)


@pytest.mark.parametrize(
    "entry",
    [
        "app.example",
        "https://*",
        "https://app.*",
        "https://app.example/",
        "https://app.example:8*",
        "null",
        "https://a b",
        "https://bücher.example",
    ],
)
def test_an_entry_that_cannot_be_an_origin_is_none(entry: str) -> None:
    assert not ENTRY.fullmatch(entry)


def test_an_open_list_allows_any_page() -> None:
    assert Origins(["*"]).allow("https://any.example", [])


@pytest.mark.parametrize(
    "lines",
    [
        ["X-Forwarded-Proto: HTTPS, http"],
        ["X-Forwarded-Proto: wss"],
        ["X-Forwarded-Proto: , https"],
        ["Forwarded: for=192.0.2.1;Proto=HTTPS;host=app.example, for=10.0.0.1;proto=http"],
        ['Forwarded: proto="https"'],
        ["Forwarded: proto=https", "X-Forwarded-Proto: http"],
        ["X-Forwarded-Proto: ", "Forwarded: proto=https"],
    ],
)
def test_the_outermost_proxy_tells_that_the_client_uses_tls(lines: list[str]) -> None:
    assert is_https(headers(*lines))


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["X-Forwarded-Proto: http, https"],
        ["X-Forwarded-Proto: "],
        ["Forwarded: for=192.0.2.1"],
        ["Forwarded: proto=http, proto=https"],
        ["Forwarded: xproto=https"],
        ['Forwarded: for="proto=https"'],
    ],
)
def test_without_its_word_the_client_does_not_use_tls(lines: list[str]) -> None:
    assert not is_https(headers(*lines))


def test_many_hosts_and_ports_are_looked_at_once_each() -> None:
    many = 500
    lines = headers(
        "X-Forwarded-Host: " + "app.example," * many, "X-Forwarded-Port: " + "8443," * many
    )
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += "call" in event

    sys.setprofile(count)
    try:
        own = is_own("https://app.example:1", lines)
    finally:
        sys.setprofile(None)

    assert not own
    assert calls < 20 * many

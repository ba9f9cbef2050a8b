"""The kinds of values that settings have, and the rule of each, as errors say it."""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from notifier.core import origins
from notifier.core.errors import Invalid
from notifier.core.grants import key_entries_of

Url = TypeVar("Url", bound=str | SecretStr)

_SHORTEST_SECRET = 32
_QUOTES = "\"'[]{}"


def _split(value: object) -> object:
    return tuple(filter(None, re.split(r"[,\s]+", value))) if isinstance(value, str) else value


def upper(value: object) -> object:
    """Take a value in any case, and with white space around it."""
    return value.strip().upper() if isinstance(value, str) else value


def _no_service_link(value: object) -> object:
    if isinstance(value, str) and value.startswith("tcp://"):
        raise ValueError(
            "holds the address of a Kubernetes Service, not a port: "
            "set enableServiceLinks: false in the pod"
        )
    return value


def _strip(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


def _addresses_with(*schemes: str) -> Callable[[Url], Url]:
    begins = " or ".join(f"{scheme}://" for scheme in schemes)

    def check(value: Url) -> Url:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        for url in _addresses(text):
            if " " in url or not url.isprintable():
                raise ValueError("must have no spaces or control characters but as %20, %0A …")
            if not _is_address(url, schemes):
                raise ValueError(
                    f"must begin with {begins}, and have no / # ? @ in its password "
                    "but as %2F %23 %3F %40"
                )
        return value

    return check


def _is_long(value: SecretStr) -> SecretStr:
    secrets = lines_of(value)
    if not secrets:
        raise ValueError(f"must have at least {_SHORTEST_SECRET} bytes")
    if any(len(secret.encode()) < _SHORTEST_SECRET for secret in secrets):
        each = ", each of its lines" if len(secrets) > 1 else ""
        raise ValueError(f"must have at least {_SHORTEST_SECRET} bytes{each}")
    return value


def _are_bare(value: tuple[str, ...]) -> tuple[str, ...]:
    if any(each[0] in _QUOTES or each[-1] in _QUOTES for each in value):
        raise ValueError("must be names separated by commas, without quotes or brackets")
    return value


def _are_web_addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_is_address(url, ("http", "https")) for url in value):
        raise ValueError("must begin with https://")
    return value


def _are_entries(value: tuple[str, ...]) -> tuple[str, ...]:
    try:
        key_entries_of(value)
    except Invalid as error:
        raise ValueError(error.reason) from None  # its text may hold a secret
    return value


def _are_origins(value: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(origins.ENTRY.fullmatch, value)):
        raise ValueError(
            "must be origins without a path, such as https://app.example, where * stands for "
            "subdomains or any port (https://*.app.example, http://localhost:*); or * for any; "
            "names beyond ASCII are written as browsers send them, in punycode (https://xn--…)"
        )
    return value


def _are_networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for each in value:
        try:
            ip_network(each, strict=False)
        except ValueError:
            raise ValueError("must be addresses or networks of IPv4 or IPv6") from None
    return value


def _addresses(text: str) -> list[str]:
    """Return the addresses of a list; those of Sentinels as if there were one address each."""
    scheme, separator, rest = text.partition("://")
    if not scheme.endswith("+sentinel"):
        return re.split(r",\s*", text)
    credentials, at, hosts = rest.rpartition("@")
    hosts, slash, path = hosts.partition("/")
    return [f"{scheme}{separator}{credentials}{at}{host}{slash}{path}" for host in hosts.split(",")]


def lines_of(value: SecretStr) -> tuple[str, ...]:
    """Return the lines that are not empty."""
    lines = (line.rstrip("\r") for line in value.get_secret_value().split("\n"))
    return tuple(filter(None, lines))


def _is_address(url: str, schemes: tuple[str, ...]) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may quote a part of the password
        return False
    return parts.scheme in schemes and port != 0


Port = Annotated[int, Field(ge=0, le=65535), BeforeValidator(_no_service_link)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
KeyEntries = Annotated[Words, AfterValidator(_are_entries)]
Origins = Annotated[Words, AfterValidator(_are_origins)]
Networks = Annotated[Words, AfterValidator(_are_networks)]
BareWords = Annotated[Words, AfterValidator(_are_bare)]
WebAddresses = Annotated[BareWords, AfterValidator(_are_web_addresses)]
JwtSecret = Annotated[SecretStr, AfterValidator(_is_long)]
Secret = Annotated[SecretStr, BeforeValidator(_strip)]
AmqpUrl = Annotated[Secret, AfterValidator(_addresses_with("amqp", "amqps"))]
RedisUrl = Annotated[
    Secret,
    AfterValidator(_addresses_with("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")),
]
WebAddress = Annotated[
    str, BeforeValidator(_strip), AfterValidator(_addresses_with("http", "https"))
]
SecretWebAddress = Annotated[Secret, AfterValidator(_addresses_with("http", "https"))]

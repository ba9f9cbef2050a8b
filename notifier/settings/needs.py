"""The settings that a role cannot do without, by itself or beside the others that are given."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.core.grants import Scope, key_entries_of
from notifier.settings.sentences import example, variable

if TYPE_CHECKING:
    from notifier.settings import Role, Settings

KEYS_OF_TOKENS = ("jwt_secret", "jwt_public_key", "jwks_url", "jwt_discovery_url")


def missing(settings: "Settings", role: "Role") -> Iterator[str]:
    """Yield a line for each setting that a role lacks, or has beside one that rules it out."""
    match role:
        case "api":
            yield from _of_api(settings)
        case "gateway":
            yield from _of_gateway(settings)
        case "router" | "dev":
            pass


def _of_api(settings: "Settings") -> Iterator[str]:
    if not settings.api_keys:
        yield _line(settings, "api_keys", "is required, or nobody could post events")
    if settings.is_given("redis_url"):
        return
    for _, grant in key_entries_of(settings.api_keys):
        if scopes := [scope for scope in grant.scopes if scope is not Scope.POST]:
            has = f"the key {grant.name} has the scope {' and '.join(scopes)}"
            yield _line(settings, "redis_url", f"is required, as {has}")


def _of_gateway(settings: "Settings") -> Iterator[str]:
    tls = ("tls_certificate", "tls_key")
    for name, other in (tls, tls[::-1]):
        if getattr(settings, name) is None and getattr(settings, other) is not None:
            yield _line(settings, name, f"is required beside {variable(other)}")
    yield from _keys(settings)
    for name in ("jwt_issuer", "jwt_audience"):
        is_known = name == "jwt_issuer" and settings.jwt_discovery_url
        if not getattr(settings, name) and not is_known:
            why = "is required, or tokens issued for others would be accepted"
            yield _line(settings, name, why)


def _keys(settings: "Settings") -> Iterator[str]:
    given = settings.given_keys()
    if not given:
        *others, last = map(variable, KEYS_OF_TOKENS)
        why = f"exactly one is required of {', '.join(others)} and {last}"
        yield _line(settings, "jwt_secret", why)
    for name in given[1:]:
        yield f"{variable(name)}: cannot stand beside {variable(given[0])}; leave one of them out"


def _line(settings: "Settings", name: str, why: str) -> str:
    return f"{variable(name)}: {why}; {example(name, type(settings).model_fields)}"

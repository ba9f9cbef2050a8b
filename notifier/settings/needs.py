"""The settings that a role cannot do without, by itself or beside the others that are given."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.core.grants import Scope, key_entries_of
from notifier.settings.sentences import example, variable

if TYPE_CHECKING:
    from notifier.settings import Role, Settings

KEYS_OF_TOKENS = ("jwt_secret", "jwt_public_key", "jwks_url", "jwt_discovery_url")
_Need = tuple[str, str]  # the name of a setting, and why it is needed


def missing(settings: "Settings", role: "Role") -> Iterator[str]:
    """Yield a line for each setting that a role needs and is not given."""
    needs = {"gateway": _of_gateway, "api": _of_api}.get(role)
    for name, why in needs(settings) if needs else ():
        yield f"{variable(name)}: {why}; {example(name, type(settings).model_fields)}"


def _of_api(settings: "Settings") -> Iterator[_Need]:
    if not settings.api_keys:
        yield "api_keys", "is required, or nobody could post events"
    if settings.is_given("redis_url"):
        return
    for _, grant in key_entries_of(settings.api_keys):
        if scopes := [scope for scope in grant.scopes if scope is not Scope.POST]:
            has = f"the key {grant.name} has the scope {' and '.join(scopes)}"
            yield "redis_url", f"is required, as {has}"


def _of_gateway(settings: "Settings") -> Iterator[_Need]:
    tls = ("tls_certificate", "tls_key")
    for name, other in (tls, tls[::-1]):
        if getattr(settings, name) is None and getattr(settings, other) is not None:
            yield name, f"is required beside {variable(other)}"
    if len(settings.given_keys()) != 1:
        *others, last = map(variable, KEYS_OF_TOKENS)
        yield "jwt_secret", f"exactly one is required of {', '.join(others)} and {last}"
    for name in ("jwt_issuer", "jwt_audience"):
        is_known = name == "jwt_issuer" and settings.jwt_discovery_url
        if not getattr(settings, name) and not is_known:
            yield name, "is required, or tokens issued for others would be accepted"

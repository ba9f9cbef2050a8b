"""Credentials as the settings have them: the verifier of tokens, tokens, and a certificate."""

from collections.abc import Sequence

from notifier.adapters.tokens.issuer import OnFetch, unheard
from notifier.adapters.tokens.minting import mint
from notifier.adapters.tokens.verifier import ClaimRules, Issuer, JwtVerifier, issuers_of
from notifier.http.certificate import ServerCertificate
from notifier.settings import Settings, SettingsError, variable


def verifier(settings: Settings, on_fetch: OnFetch = unheard) -> JwtVerifier:
    """Make the verifier of tokens; raises SettingsError for keys that cannot be."""
    rules = ClaimRules(
        _accepted(settings.jwt_audience),
        settings.jwt_user_claim,
        settings.jwt_topics_claim,
        settings.jwt_leeway_seconds,
    )
    return JwtVerifier(issuers(settings, on_fetch), rules)


def certificate(settings: Settings) -> ServerCertificate | None:
    """Make the certificate of the public port, where it has one; raises SettingsError."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    pair = (settings.tls_certificate, settings.tls_key)
    try:
        return ServerCertificate(*(each.get_secret_value().replace("\\n", "\n") for each in pair))
    except ValueError as error:
        raise SettingsError([f"NOTIFIER_TLS_CERTIFICATE, NOTIFIER_TLS_KEY: {error}"]) from None


def issuers(settings: Settings, on_fetch: OnFetch = unheard) -> list[Issuer]:
    """Return the issuers that a gateway trusts; raises SettingsError for keys that cannot be."""
    try:
        return issuers_of(
            secrets=settings.jwt_secrets,
            public_key=settings.jwt_public_key,
            jwks_url=settings.jwks_url,
            discovery_urls=settings.jwt_discovery_url,
            names=_accepted(settings.jwt_issuer),
            on_fetch=on_fetch,
        )
    except ValueError as error:
        given = ", ".join(map(variable, settings.given_keys()))
        raise SettingsError([f"{given}: {error}"]) from error


def minted(  # noqa: PLR0913 - one argument for each claim
    settings: Settings,
    user: str,
    topics: Sequence[str],
    lifetime: float,
    *,
    publish: Sequence[str] = (),
    presence: Sequence[str] = (),
) -> str:
    """Make a token that a gateway of these settings accepts, signed with their first secret.

    Raises Invalid for a malformed user id, and ValueError for a secret that is too short.
    """
    return mint(
        settings.jwt_secrets[0],
        user,
        topics=topics,
        issuer=(_accepted(settings.jwt_issuer) or (None,))[0],
        audience=(_accepted(settings.jwt_audience) or (None,))[0],
        lifetime=lifetime,
        user_claim=settings.jwt_user_claim,
        topics_claim=settings.jwt_topics_claim,
        publish=publish,
        presence=presence,
    )


def _accepted(names: tuple[str, ...]) -> tuple[str, ...] | None:
    """Return the `iss` or `aud` that tokens may have; None for any, also for none at all."""
    return None if "*" in names else names or None

"""The recipes of docs/identity.md, followed: its settings, and tokens of each provider's shape."""

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from notifier.core.access import Identity
from notifier.core.errors import Unauthorized
from notifier.credentials import verifier
from notifier.settings import Settings
from tests.support.json_server import JsonServer
from tests.support.tokens import RSA, jwk_of

DOCUMENT = (Path(__file__).parents[2] / "docs" / "identity.md").read_text()
TENANT = "aaaabbbb-0000-cccc-1111-dddd2222eeee"
UUID = "5f3c6c1e-8c0a-4f9e-9d55-0a4b7c1f2d3e"


def recipe(heading: str, number: int = 0) -> dict[str, str]:
    section = DOCUMENT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    block = re.findall(r"```env\n(.*?)```", section, re.DOTALL)[number]
    return dict(line.split("=", 1) for line in block.splitlines())


class Provider(JsonServer):
    """An identity provider on loopback: metadata of each of its issuers, and one key set."""

    def __init__(self, issuers: Mapping[str, str]) -> None:
        super().__init__()
        self.issuers = issuers  # by the path of their metadata

    def here(self, text: str) -> str:
        """Put this server in the provider's place."""
        return re.sub(r"https://[a-z0-9.-]+(?=/)", self.origin, text)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """See JsonServer."""
        issuer = self.issuers.get(path.removesuffix("/.well-known/openid-configuration"))
        if issuer is None:
            return 200, {"keys": [jwk_of(RSA, "k1", use="sig", x5c=["MII"])]}
        return 200, {"issuer": issuer, "jwks_uri": f"{self.origin}/keys", "acr": [1]}


@pytest.fixture(autouse=True)
def nothing_else_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


async def identity_by(
    settings: Mapping[str, str], token: str, monkeypatch: pytest.MonkeyPatch
) -> Identity:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    async with verifier(Settings.load("gateway")) as verifying:
        return await verifying.verify(token)


def signed(claims: Mapping[str, object], key: rsa.RSAPrivateKey = RSA) -> str:
    times = {"iat": int(time.time()), "exp": int(time.time()) + 3600}
    return jwt.encode({**times, **claims}, key, "RS256", headers={"kid": "k1"})


AUTH0 = {
    "iss": "https://tenant.eu.auth0.com/",
    "sub": "auth0|507f1f77bcf86cd799439011",
    "aud": ["https://notifier.app.example", "https://tenant.eu.auth0.com/userinfo"],
    "azp": "client",
    "scope": "openid profile",
    "https://app.example/topics": ["news"],
}
KEYCLOAK = {
    "iss": "https://keycloak.example/realms/main",
    "sub": UUID,
    "aud": ["notifier", "account"],
    "typ": "Bearer",
    "azp": "web",
    "realm_access": {"roles": ["offline_access"]},
    "preferred_username": "ann",
}
COGNITO = {
    "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_Example",
    "sub": UUID,
    "client_id": "1example23456789",
    "token_use": "access",
    "username": "ann",
    "cognito:groups": ["staff"],
}
FIREBASE = {
    "iss": "https://securetoken.google.com/my-project",
    "aud": "my-project",
    "sub": "JDoAZRbTkhMkRMfFYTFPVhLUvGD3",
    "user_id": "JDoAZRbTkhMkRMfFYTFPVhLUvGD3",
    "auth_time": 1,
    "firebase": {"identities": {"email": ["ann@app.example"]}, "sign_in_provider": "password"},
    "topics": ["news"],
}
ENTRA = {
    "iss": f"https://login.microsoftonline.com/{TENANT}/v2.0",
    "aud": "00001111-aaaa-2222-bbbb-3333cccc4444",
    "sub": "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
    "oid": UUID,
    "tid": TENANT,
    "ver": "2.0",
    "nbf": 1,
}
ENTRA_1 = {
    **ENTRA,
    "iss": f"https://sts.windows.net/{TENANT}/",
    "aud": "api://notifier",
    "ver": "1.0",
}


@pytest.mark.parametrize(
    ("heading", "number", "path", "claims", "user", "topics"),
    [
        ("Auth0", 0, "", AUTH0, AUTH0["sub"], ("news",)),
        ("Keycloak", 0, "/realms/main", KEYCLOAK, UUID, ()),
        ("Amazon Cognito", 0, "/eu-central-1_Example", COGNITO, UUID, ()),
        ("Firebase", 0, "/my-project", FIREBASE, FIREBASE["sub"], ("news",)),
        ("Microsoft Entra ID", 0, f"/{TENANT}/v2.0", ENTRA, UUID, ()),
        ("Microsoft Entra ID", 1, f"/{TENANT}", ENTRA_1, UUID, ()),
        ("Several issuers", 0, "/realms/main", KEYCLOAK, UUID, ()),
    ],
)
async def test_a_token_of_the_provider_is_accepted_by_its_recipe(  # noqa: PLR0913, PLR0917  # a table
    monkeypatch: pytest.MonkeyPatch,
    heading: str,
    number: int,
    path: str,
    claims: Mapping[str, Any],
    user: str,
    topics: tuple[str, ...],
) -> None:
    issuers: dict[str, str] = {}
    with Provider(issuers) as provider:
        here = {**claims, "iss": provider.here(claims["iss"])}
        issuers[path] = here["iss"]
        settings = {
            name: provider.here(value) if "URL" in name or "ISSUER" in name else value
            for name, value in recipe(heading, number).items()
        }

        identity = await identity_by(settings, signed(here), monkeypatch)
        foreign = signed({**here, "iss": "https://other.example/"})
        with pytest.raises(Unauthorized, match="the token's iss is not"):
            await identity_by(settings, foreign, monkeypatch)

    assert (identity.user, identity.patterns) == (user, topics)


async def test_five_lines_of_python_sign_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe("A backend of your own")
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    names: dict[str, Any] = {"jwt": jwt, "time": time, "SECRET": settings["NOTIFIER_JWT_SECRET"]}
    exec(code, names)  # noqa: S102  # the document's

    identity = await identity_by(settings, names["token_of"](42), monkeypatch)

    assert (identity.user, identity.patterns) == ("42", ("news",))


async def test_tokens_of_simple_jwt_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe("A backend of your own", 1)
    claims = {"token_type": "access", "exp": time.time() + 300, "jti": "1a", "user_id": 42}
    token = jwt.encode(claims, settings["NOTIFIER_JWT_SECRET"], "HS256")

    identity = await identity_by(settings, token, monkeypatch)

    assert identity.user == "42"

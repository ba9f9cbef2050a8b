"""Identity: the four ways to hand over a token, and the three kinds of keys."""

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect as connect_in_thread

from notifier.adapters.tokens.minting import mint
from tests.support.clients import Client, connected
from tests.support.foreign import foreign_client
from tests.support.issuer import Issuer
from tests.support.process import wait_until
from tests.support.roles import AUDIENCE, ISSUER, SECRET, TOKENS, Role, running, token
from tests.support.services import emptied

CHECKED = {"NOTIFIER_JWT_ISSUER": ISSUER, "NOTIFIER_JWT_AUDIENCE": AUDIENCE}
PAGE = "https://app.example"


@dataclass(frozen=True)
class Entrance:
    """A gateway, and who makes the tokens that it takes."""

    gateway: Role
    token: Callable[[str], str]


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as issuer:
        yield issuer


@pytest.fixture(scope="module")
def entrances(_redis_address: str, logs: Path, issuer: Issuer) -> Iterator[Mapping[str, Entrance]]:
    """A gateway for each kind of key."""
    pem = logs / "public.pem"
    pem.write_text(issuer.public_key)
    keys = {
        "secret": TOKENS,
        "public key": {**CHECKED, "NOTIFIER_JWT_PUBLIC_KEY_FILE": str(pem)},
        "key set": {**CHECKED, "NOTIFIER_JWKS_URL": issuer.url},
    }
    with ExitStack() as stack:
        redis = {"NOTIFIER_REDIS_URL": stack.enter_context(emptied(_redis_address))}
        roles = {
            kind: Role(
                "gateway", logs / f"{kind}.log", **redis, **key, NOTIFIER_ALLOWED_ORIGINS=PAGE
            )
            for kind, key in keys.items()
        }
        stack.enter_context(running(*roles.values()))
        yield {
            kind: Entrance(role, token if kind == "secret" else issuer.token)
            for kind, role in roles.items()
        }


@pytest.fixture
def gateway(entrances: Mapping[str, Entrance]) -> Role:
    """The gateway that takes tokens signed with the secret."""
    return entrances["secret"].gateway


# The ways in.


@pytest.fixture(params=["secret", "public key", "key set"])
def entrance(entrances: Mapping[str, Entrance], request: pytest.FixtureRequest) -> Entrance:
    return entrances[request.param]


async def test_a_foreign_client_gives_its_token_in_the_authorization_header(
    entrance: Entrance,
) -> None:
    given = {"Authorization": f"Bearer {entrance.token('42')}"}

    async with foreign_client(entrance.gateway.gateway_url, given) as client:
        assert (await client.next_frame())["user"] == "42"
        assert client.subprotocol is None


async def test_a_foreign_client_gives_its_token_as_a_subprotocol(entrance: Entrance) -> None:
    given = {"Sec-WebSocket-Protocol": f"bearer.{entrance.token('42')}, notifier.v1"}

    async with foreign_client(entrance.gateway.gateway_url, given) as client:
        assert (await client.next_frame())["user"] == "42"
        assert client.subprotocol == "notifier.v1"


async def test_a_foreign_client_gives_its_token_in_a_cookie(entrance: Entrance) -> None:
    given = {"Origin": PAGE, "Cookie": f"a=b; notifier_token={entrance.token('42')}"}

    async with foreign_client(entrance.gateway.gateway_url, given) as client:
        assert (await client.next_frame())["user"] == "42"


async def test_a_foreign_client_gives_its_token_in_the_first_frame(entrance: Entrance) -> None:
    async with foreign_client(entrance.gateway.gateway_url, {}) as client:
        await client.send(type="auth", id=1, token=entrance.token("42"))

        answer, hello = await client.next_frame(), await client.next_frame()

        assert (answer["type"], answer["id"]) == ("authenticated", 1)
        assert (hello["type"], hello["user"]) == ("hello", "42")


# Those that stay outside.


def made(*, secret: str = SECRET, issuer: str = ISSUER, audience: str = AUDIENCE) -> str:
    return mint(secret, "42", topics=(), issuer=issuer, audience=audience, lifetime=600)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(made(secret="another secret that is long enough"), id="another secret's"),
        pytest.param(made(issuer="https://other.example/"), id="another issuer's"),
        pytest.param(made(audience="shop"), id="for another audience"),
        pytest.param(jwt.encode({"sub": "42"}, "", algorithm="none"), id="unsigned"),
        pytest.param("nonsense", id="nonsense"),
    ],
)
async def test_a_bad_token_is_told_why_and_closed_with_4500(gateway: Role, bad: str) -> None:
    headers = {"authorization": f"Bearer {bad}"}
    url = f"{gateway.gateway_url}/v1/ws"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        client = Client(socket)

        assert await client.closed_with() == 4500
        assert [frame["type"] for frame in client.frames] == ["error", "bye"]
        assert "the token" in client.frames[0]["message"]


def signed_with_the_public_key(claims: dict[str, object], key: str) -> str:
    """The classic forgery: HS256, with what everybody knows as the secret."""
    head = {"alg": "HS256", "typ": "JWT"}
    parts = [urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (head, claims)]
    signature = hmac.digest(key.encode(), b".".join(parts), "sha256")
    return b".".join([*parts, urlsafe_b64encode(signature).rstrip(b"=")]).decode()


async def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    entrances: Mapping[str, Entrance], logs: Path
) -> None:
    claims = {"sub": "42", "iss": ISSUER, "aud": AUDIENCE, "exp": 9_000_000_000}
    forged = signed_with_the_public_key(claims, (logs / "public.pem").read_text())
    given = {"Authorization": f"Bearer {forged}"}

    async with foreign_client(entrances["public key"].gateway.gateway_url, given) as client:
        reason = (await client.next_frame())["message"]

    assert reason.startswith("the token's alg is not its key's: PS256 or ")


async def test_a_token_in_the_url_is_refused(gateway: Role) -> None:
    async with connect(f"{gateway.gateway_url}/v1/ws?token={token('42')}", proxy=None) as socket:
        assert await Client(socket).closed_with() == 4500


async def test_a_page_of_another_site_is_told_why_and_closed(gateway: Role) -> None:
    headers = {"origin": "https://evil.example", "cookie": f"notifier_token={token('42')}"}
    url = f"{gateway.gateway_url}/v1/ws"

    async with connect(url, additional_headers=headers, proxy=None) as socket:
        assert await Client(socket).closed_with() == 4501


async def test_a_topic_beyond_the_tokens_patterns_is_forbidden(gateway: Role) -> None:
    async with connected(gateway.gateway_url, token("42", "team:7:*")) as client:
        await client.follow("team:7:lunch")
        await client.send(type="subscribe", id=8, topic="team:8:lunch")

        error = await client.next("error")

        assert (error["id"], error["code"]) == (8, "forbidden")


async def test_other_peoples_personal_topics_are_forbidden_even_to_a_star(gateway: Role) -> None:
    async with connected(gateway.gateway_url, token("42", "*"), topics=["user:43"]) as client:
        assert (await client.next("error"))["code"] == "forbidden"
        assert list(client.frames[0]["topics"]) == ["user:42", "everyone"]


# How long it lasts.


async def test_a_token_that_expired_before_the_connect_is_closed_with_a_way_back(
    gateway: Role,
) -> None:
    headers = {"authorization": f"Bearer {token('42', seconds=-60)}"}
    url = f"{gateway.gateway_url}/v1/ws"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        client = Client(socket)

        assert await client.closed_with() == 4001
        assert [frame["type"] for frame in client.frames] == ["error", "bye"]
        assert client.frames[0]["code"] == "token_expired"


async def test_an_expired_token_closes_with_4001_and_one_refreshed_in_place_stays(
    gateway: Role,
) -> None:
    short = token("42", seconds=2)
    async with (
        connected(gateway.gateway_url, short) as forgetful,
        connected(gateway.gateway_url, short) as careful,
    ):
        await careful.send(type="auth", id=9, token=token("42"))
        assert (await careful.next("authenticated"))["id"] == 9

        assert await forgetful.closed_with() == 4001
        assert forgetful.frames[-1]["reconnect_after_ms"] > 0
        await careful.send(type="ping")
        assert (await careful.next_frame())["type"] == "pong"


async def test_a_bad_token_in_place_leaves_the_old_one_in_force(gateway: Role) -> None:
    async with connected(gateway.gateway_url, token("42")) as client:
        await client.send(type="auth", id=9, token="nonsense")

        error = await client.next("error")
        assert (error["id"], error["code"]) == (9, "unauthorized")
        await client.send(type="ping")
        assert (await client.next_frame())["type"] == "pong"


async def test_a_token_of_somebody_else_in_place_closes_with_4501(gateway: Role) -> None:
    async with connected(gateway.gateway_url, token("42")) as client:
        await client.send(type="auth", token=token("43"))

        assert await client.closed_with() == 4501


def test_a_key_that_the_issuer_has_just_rotated_in_is_taken_while_running(
    entrances: Mapping[str, Entrance], issuer: Issuer
) -> None:
    entrance = entrances["key set"]
    old = entrance.token("42")

    issuer.rotate()

    def answer(given: str) -> str:
        headers = {"authorization": f"Bearer {given}"}
        url = f"{entrance.gateway.gateway_url}/v1/ws"
        try:
            with connect_in_thread(url, additional_headers=headers, proxy=None) as socket:
                return str(socket.recv(timeout=10))
        except InvalidStatus as refused:  # until the issuer is asked again it is 503
            return str(refused)

    # It asks the issuer at most every 10 s, by any key ids that tokens claim.
    wait_until(
        lambda: '"type":"hello"' in answer(entrance.token("42")),
        seconds=30,
        otherwise=lambda: answer(entrance.token("42")),
    )
    wait_until(
        lambda: "kid is none of the issuer's" in answer(old),
        seconds=30,
        otherwise=lambda: answer(old),
    )

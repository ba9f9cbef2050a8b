"""The words of `notifier check` on an issuer that publishes its keys, asked over real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from notifier.adapters.tokens.check import check_issuer
from notifier.adapters.tokens.issuer import IssuerKeys
from notifier.core import findings
from notifier.core.findings import Finding
from tests.support.commands import run
from tests.support.issuer import Issuer
from tests.support.process import free_port
from tests.support.tls import authorities_read_anew, tls_in_front_of

SETTING = "NOTIFIER_JWKS_URL"


async def checked(url: str, issuers: Collection[str] | None = None) -> Finding:
    return await check_issuer(IssuerKeys(url, issuers=issuers), SETTING)


@asynccontextmanager
async def answering(body: bytes) -> AsyncIterator[str]:
    """An HTTP server that answers each request by this body; yields its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


async def test_the_keys_of_an_issuer_are_counted_with_their_algorithms() -> None:
    with Issuer() as issuer:
        found = await checked(issuer.url)

    place = urlsplit(issuer.url).netloc
    algorithms = "PS256, PS384, PS512, RS256, RS384, RS512"
    assert found == Finding("ok", "token issuer", f"{place} publishes 1 key: {algorithms}")


async def test_an_issuer_that_is_away_is_out_of_reach() -> None:
    found = await checked(f"http://127.0.0.1:{free_port()}/keys")

    assert found.level == "error"
    assert "is out of reach" in found.text
    assert found.mend == f"start it, or correct {SETTING}"


async def test_an_issuer_that_hangs_gave_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifier.adapters.tokens.check.PATIENCE", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hangs:  # the kernel connects, nobody reads
        found = await checked(f"http://127.0.0.1:{hangs.getsockname()[1]}/")

    assert findings.TOO_LATE in found.text


async def test_a_status_is_told() -> None:
    with Issuer() as issuer:
        issuer.away = True
        found = await checked(issuer.url)

    assert found.text.endswith("it answered 503")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<html>", "does not answer as an issuer does: "),
        (b'{"keys":[]}', "its key set holds no public key for verifying signatures"),
        (b'{"keys":[{"kty":"oct","k":"AAAA"}]}', "its key set holds no public key"),
    ],
)
async def test_an_answer_without_a_key_is_told(body: bytes, text: str) -> None:
    async with answering(body) as url:
        found = await checked(url)

    assert found.level == "error"
    assert text in found.text
    assert SETTING in found.mend


async def test_metadata_of_another_issuer_names_both() -> None:
    body = json.dumps({"issuer": "https://theirs.example", "jwks_uri": "https://x.example/"})
    async with answering(body.encode()) as url:
        found = await checked(url, {"https://ours.example"})

    assert "of issuer https://theirs.example, not of https://ours.example" in found.text
    assert "set NOTIFIER_JWT_ISSUER" in found.mend


async def test_a_private_authority_is_named_with_its_remedy(tmp_path: Path) -> None:
    with Issuer() as issuer:
        async with tls_in_front_of(urlsplit(issuer.url).port or 0, tmp_path / "ca.pem") as port:
            found = await checked(f"https://127.0.0.1:{port}/keys")
            named = await checked(f"https://localhost:{port}/keys")

    for each in (found, named):
        assert "has a certificate of an authority that is not trusted here" in each.text
        assert "SSL_CERT_FILE" in each.mend


async def test_a_certificate_of_another_host_is_no_matter_of_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    with Issuer() as issuer:
        async with tls_in_front_of(urlsplit(issuer.url).port or 0, authority) as port:
            monkeypatch.setenv("SSL_CERT_FILE", str(authority))
            with authorities_read_anew():
                good = await checked(f"https://127.0.0.1:{port}/keys")
                other = await checked(f"https://localhost:{port}/keys")

    assert good.level == "ok"
    assert "has the certificate of another host" in other.text


def test_the_command_checks_the_issuer_of_a_gateway() -> None:
    with Issuer() as issuer:
        settings = {
            "NOTIFIER_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
            "NOTIFIER_JWT_ISSUER": "*",
            "NOTIFIER_JWT_AUDIENCE": "notifier",
        }
        right = run("check", "--role", "gateway", NOTIFIER_JWKS_URL=issuer.url, **settings)
        issuer.away = True
        wrong = run("check", "--role", "gateway", NOTIFIER_JWKS_URL=issuer.url, **settings)

    assert "ok       token issuer" in right.stdout
    assert "error    token issuer" in wrong.stdout
    assert "correct NOTIFIER_JWKS_URL" in wrong.stdout


@pytest.mark.parametrize("value", ['["notifier"]', '"notifier"', "'notifier'"])
def test_an_audience_in_brackets_or_quotes_is_refused(value: str) -> None:
    settings = {"NOTIFIER_JWKS_URL": "https://issuer.example/keys", "NOTIFIER_JWT_ISSUER": "*"}

    ended = run("check", "--role", "gateway", NOTIFIER_JWT_AUDIENCE=value, **settings)

    assert ended.returncode == 2
    rule = "must be names separated by commas, without quotes or brackets"
    assert f"NOTIFIER_JWT_AUDIENCE: {rule}" in ended.stderr

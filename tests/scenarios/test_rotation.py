"""Keys rotate while a gateway runs, as docs/operating.md says."""

import os
import signal
from pathlib import Path

from notifier.adapters.tokens.minting import mint
from tests.support.clients import connected
from tests.support.process import wait_until
from tests.support.roles import AUDIENCE, ISSUER, Role, running
from tests.support.services import emptied

OLD = "the old secret of more than thirty-two bytes"
NEW = "the new secret of more than thirty-two bytes"


def token(secret: str) -> str:
    return mint(secret, "42", topics=(), issuer=ISSUER, audience=AUDIENCE, lifetime=600)


def reload(gateway: Role, file: Path, content: str) -> None:
    before = len(gateway.lines("settings_reloaded"))
    file.write_text(content)
    os.kill(gateway.pid, signal.SIGHUP)
    wait_until(
        lambda: len(gateway.lines("settings_reloaded")) > before,
        seconds=30,
        otherwise=gateway.log_tail,
    )


async def test_a_secret_rotates_with_nobody_closed(_redis_address: str, tmp_path: Path) -> None:  # noqa: PT019  # its value is used
    file = tmp_path / "secret"
    file.write_text(OLD)
    settings = {
        "NOTIFIER_JWT_SECRET_FILE": str(file),
        "NOTIFIER_JWT_ISSUER": ISSUER,
        "NOTIFIER_JWT_AUDIENCE": AUDIENCE,
    }
    with emptied(_redis_address) as redis:
        gateway = Role("gateway", tmp_path / "log", NOTIFIER_REDIS_URL=redis, **settings)
        with running(gateway):
            async with connected(gateway.gateway_url, token(OLD)) as first:
                reload(gateway, file, f"{OLD}\n{NEW}\n")
                async with connected(gateway.gateway_url, token(NEW)) as second:
                    async with connected(gateway.gateway_url, token(OLD)):
                        pass
                    reload(gateway, file, NEW)
                    for client in (first, second):
                        await client.send(type="ping")
                        assert (await client.next_frame())["type"] == "pong"
            async with connected(gateway.gateway_url, token(NEW)) as third:
                await third.send(type="ping")
                assert (await third.next_frame())["type"] == "pong"

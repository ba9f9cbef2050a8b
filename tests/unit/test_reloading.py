import asyncio
import os
import signal
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from notifier.credentials import take_keys, verifier
from notifier.reloading import reloading
from notifier.settings import Settings
from tests.support.tokens import SECRET, refusal, signed

NEVER = 3600.0


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "secret"
    file.write_text(SECRET)
    monkeypatch.setenv("NOTIFIER_JWT_SECRET_FILE", str(file))
    monkeypatch.setenv("NOTIFIER_JWT_ISSUER", "*")
    monkeypatch.setenv("NOTIFIER_JWT_AUDIENCE", "*")
    return file


def write(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


class Taken:
    """The settings that were taken over."""

    def __init__(self) -> None:
        self.settings = asyncio.Queue[Settings]()

    def __call__(self, settings: Settings) -> None:
        self.settings.put_nowait(settings)


async def test_sighup_reads_the_settings_anew_and_ends_nothing(secret: Path) -> None:
    taken = Taken()
    async with reloading("gateway", taken, NEVER):
        write(secret, f"{SECRET}\n{SECRET} 2")

        os.kill(os.getpid(), signal.SIGHUP)
        settings = await taken.settings.get()

    assert settings.jwt_secrets == (SECRET, f"{SECRET} 2")


async def test_a_file_that_changes_is_read_anew(secret: Path) -> None:
    taken = Taken()
    async with reloading("gateway", taken, 0.01):
        await asyncio.sleep(0)  # the states before are seen
        write(secret, f"{SECRET} 2")
        settings = await taken.settings.get()

    assert settings.jwt_secrets == (f"{SECRET} 2",)


async def test_settings_that_cannot_work_are_logged_and_the_earlier_ones_stay(secret: Path) -> None:
    taken, logged = Taken(), asyncio.Event()

    def heard(_logger: object, _method: str, line: EventDict) -> EventDict:
        logged.set()
        return line

    with capture_logs(processors=[heard]) as logs:
        async with reloading("gateway", taken, NEVER):
            write(secret, "short")
            os.kill(os.getpid(), signal.SIGHUP)
            await logged.wait()
            write(secret, f"{SECRET} 2")
            os.kill(os.getpid(), signal.SIGHUP)
            settings = await taken.settings.get()

    assert logs[0]["event"] == "settings_not_reloaded"
    assert "NOTIFIER_JWT_SECRET: must have at least 32 bytes" in logs[0]["reason"]
    assert settings.jwt_secrets == (f"{SECRET} 2",)


async def test_a_secret_is_rotated_while_tokens_of_both_are_verified(secret: Path) -> None:
    new = f"{SECRET} 2"
    verifying = verifier(Settings.load("gateway"))
    old_token, new_token = signed(SECRET, "HS256"), signed(new, "HS256")
    await verifying.verify(old_token)

    write(secret, f"{SECRET}\n{new}")
    take_keys(verifying, Settings.load("gateway"))
    users = [(await verifying.verify(token)).user for token in (old_token, new_token)]
    write(secret, new)
    take_keys(verifying, Settings.load("gateway"))
    last = (await verifying.verify(new_token)).user
    reason = await refusal(verifying, old_token)

    assert (users, last) == (["42", "42"], "42")
    assert reason == "the token's signature is not by a key that is known here"

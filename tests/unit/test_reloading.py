import asyncio
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import EventDict

from notifier.credentials import issuers, verifier
from notifier.http.certificate import ServerCertificate
from notifier.reloading import reloading
from notifier.settings import Settings
from notifier.telemetry import logs
from notifier.telemetry.metrics import Metrics
from notifier.wiring.parts import take_credentials
from tests.support.tls import made_pair
from tests.support.tokens import SECRET, refusal, signed

pytestmark = pytest.mark.usefixtures("own_sighup")

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

    def __call__(self, settings: Settings) -> tuple[str, ...]:
        self.settings.put_nowait(settings)
        return ()


def reloaded(
    taken: Taken, every: float = NEVER, metrics: Metrics | None = None
) -> AbstractAsyncContextManager[None]:
    return reloading("gateway", Settings.load("gateway"), taken, metrics or Metrics(), every)


async def test_sighup_reads_the_settings_anew_and_ends_nothing(secret: Path) -> None:
    taken = Taken()
    async with reloaded(taken):
        write(secret, f"{SECRET}\n{SECRET} 2")

        os.kill(os.getpid(), signal.SIGHUP)
        settings = await taken.settings.get()

    assert settings.jwt_secrets == (SECRET, f"{SECRET} 2")


@pytest.mark.usefixtures("secret")
@pytest.mark.parametrize("turns", range(8))
async def test_a_sighup_in_the_moment_of_the_end_holds_nothing_up(turns: int) -> None:
    async with asyncio.timeout(30), reloaded(Taken()):
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(turns):
            await asyncio.sleep(0)

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # until the process has ended


@pytest.mark.usefixtures("secret")
def test_sighup_ends_the_process_at_no_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    dispositions = []
    set_handler = signal.signal

    def noted(number: int, handler: Any) -> object:  # noqa: ANN401  # signal's
        dispositions.append((number, handler))
        return set_handler(number, handler)

    async def role() -> None:
        async with reloaded(Taken()):
            pass

    monkeypatch.setattr(signal, "signal", noted)
    asyncio.run(role())

    assert (signal.SIGHUP, signal.SIG_IGN) in dispositions
    assert (signal.SIGHUP, signal.SIG_DFL) not in dispositions


async def test_a_file_that_changes_is_read_anew(secret: Path) -> None:
    taken = Taken()
    async with reloaded(taken, 0.01):
        await asyncio.sleep(0)  # the states before are seen
        write(secret, f"{SECRET} 2")
        settings = await taken.settings.get()

    assert settings.jwt_secrets == (f"{SECRET} 2",)


async def test_a_file_that_env_names_is_read_anew(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFIER_JWT_SECRET_FILE")
    secret.with_name(".env").write_text(f"NOTIFIER_JWT_SECRET_FILE={secret}\n")
    taken = Taken()
    async with reloaded(taken, 0.01):
        await asyncio.sleep(0)  # the states before are seen
        write(secret, f"{SECRET} 2")
        settings = await taken.settings.get()

    assert settings.jwt_secrets == (f"{SECRET} 2",)


async def test_an_env_that_cannot_be_read_leaves_the_earlier_settings(secret: Path) -> None:
    taken, logged = Taken(), asyncio.Event()

    def heard(_logger: object, _method: str, line: EventDict) -> EventDict:
        logged.set()
        return line

    with capture_logs(processors=[heard]) as lines:
        async with reloaded(taken, 0.01):
            await asyncio.sleep(0)  # the states before are seen
            secret.with_name(".env").write_bytes(b"\xff")
            await logged.wait()
            secret.with_name(".env").unlink()
            await taken.settings.get()

    assert lines[0]["event"] == "settings_not_reloaded"
    assert lines[0]["reason"] == ".env: cannot read it: not text"


async def test_settings_that_cannot_work_are_logged_and_the_earlier_ones_stay(secret: Path) -> None:
    taken, logged = Taken(), asyncio.Event()

    def heard(_logger: object, _method: str, line: EventDict) -> EventDict:
        logged.set()
        return line

    metrics = Metrics()
    with capture_logs(processors=[heard]) as lines:
        async with reloaded(taken, metrics=metrics):
            write(secret, "short")
            os.kill(os.getpid(), signal.SIGHUP)
            await logged.wait()
            refused = metrics.registry.get_sample_value("notifier_settings_refused")
            write(secret, f"{SECRET} 2")
            os.kill(os.getpid(), signal.SIGHUP)
            settings = await taken.settings.get()

    assert lines[0]["event"] == "settings_not_reloaded"
    assert "NOTIFIER_JWT_SECRET: must have at least 32 bytes" in lines[0]["reason"]
    assert refused == 1
    assert metrics.registry.get_sample_value("notifier_settings_refused") == 0
    assert settings.jwt_secrets == (f"{SECRET} 2",)


async def test_settings_that_only_a_restart_takes_over_are_named(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = Taken()
    monkeypatch.setenv("NOTIFIER_REDIS_URL", "redis://redis:6379/0")
    with capture_logs() as lines:
        async with reloaded(taken):
            secret.with_name(".env").write_text(
                "NOTIFIER_HISTORY_SIZE=7\nNOTIFIER_LOG_LEVEL=ERROR\n"
            )
            os.kill(os.getpid(), signal.SIGHUP)
            await taken.settings.get()
            await asyncio.sleep(0)

    waiting, last = lines[-2:]
    assert waiting["event"] == "settings_wait_for_a_restart"
    assert waiting["settings"] == ["NOTIFIER_HISTORY_SIZE"]
    assert last["event"] == "settings_reloaded"  # for those who wait for it


@pytest.mark.usefixtures("own_logs")
async def test_the_level_of_logs_changes_for_loggers_that_are_in_use(
    secret: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logs.configure("json", "INFO")
    log = structlog.stdlib.get_logger("test").bind()
    log.debug("before")
    level = secret.with_name("level")
    level.write_text("debug\n")
    monkeypatch.setenv("NOTIFIER_LOG_LEVEL_FILE", str(level))
    taken = Taken()
    async with reloaded(taken):
        os.kill(os.getpid(), signal.SIGHUP)
        await taken.settings.get()
        await asyncio.sleep(0)
    log.debug("after")

    written = capsys.readouterr().err
    assert '"event":"after"' in written
    assert '"event":"before"' not in written


async def test_a_secret_is_rotated_while_tokens_of_both_are_verified(secret: Path) -> None:
    new = f"{SECRET} 2"
    verifying = verifier(Settings.load("gateway"))
    old_token, new_token = signed(SECRET, "HS256"), signed(new, "HS256")
    await verifying.verify(old_token)

    write(secret, f"{SECRET}\n{new}")
    verifying.take_keys(issuers(Settings.load("gateway")))
    users = [(await verifying.verify(token)).user for token in (old_token, new_token)]
    write(secret, new)
    verifying.take_keys(issuers(Settings.load("gateway")))
    last = (await verifying.verify(new_token)).user
    reason = await refusal(verifying, old_token)

    assert (users, last) == (["42", "42"], "42")
    assert reason == "the token's signature is not by a key that is known here"


@pytest.mark.usefixtures("secret")
def test_tls_begins_and_ends_with_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = made_pair()
    without = Settings.load("gateway")
    monkeypatch.setenv("NOTIFIER_TLS_CERTIFICATE", pair.certificate)
    monkeypatch.setenv("NOTIFIER_TLS_KEY", pair.key)
    with_tls = Settings.load("gateway")
    verifying, shown = verifier(without), ServerCertificate(pair.certificate, pair.key)

    waiting = {"tls_certificate", "tls_key"}
    assert set(take_credentials(verifying, None, with_tls)) == waiting
    assert set(take_credentials(verifying, shown, without)) == waiting
    assert not take_credentials(verifying, shown, with_tls)
    assert not take_credentials(verifying, None, without)

import ssl
from hashlib import sha256
from pathlib import Path

import pytest

from notifier.api.app import create_app
from notifier.api.keys import ApiKeys, new_key
from notifier.client import NoAnswer, Producer
from notifier.client.http_requests import seconds_in
from notifier.client.orders import post
from notifier.serving import serve
from notifier.telemetry.metrics import Metrics
from tests.support.queues import RecordingQueue
from tests.support.tls import tls_in_front_of

KEY = new_key("shop")
APP = create_app(RecordingQueue(), Metrics(), ApiKeys((KEY.entry,)))


async def test_over_plain_http_no_authorities_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object, **__: object) -> None:
        pytest.fail("the system's authorities were read")

    monkeypatch.setattr(ssl, "create_default_context", read)
    async with serve(APP, host="127.0.0.1", port=0, setting="X") as port:
        url = f"http://127.0.0.1:{port}"

        answer = await post(url, b'{"users":["42"],"type":"t","id":"a"}', KEY.secret)
        async with Producer(url, KEY.secret) as producer:
            posted = await producer.post("t", users=["42"], id="b")

    assert (answer["id"], posted) == ("a", "b")


async def test_over_https_a_server_is_trusted_only_if_an_authority_vouches_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    event = b'{"users":["42"],"type":"t","id":"c"}'
    async with (
        serve(APP, host="127.0.0.1", port=0, setting="X") as port,
        tls_in_front_of(port, authority := tmp_path / "ca.pem") as tls,
    ):
        url = f"https://127.0.0.1:{tls}"

        with pytest.raises(NoAnswer, match="CERTIFICATE_VERIFY_FAILED"):
            await post(url, event, KEY.secret)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        answer = await post(url, event, KEY.secret)

    assert answer["id"] == "c"


async def test_white_space_around_a_key_is_left_out() -> None:
    async with serve(APP, host="127.0.0.1", port=0, setting="X") as port:
        url = f"http://127.0.0.1:{port}"

        answer = await post(url, b'{"users":["42"],"type":"t","id":"d"}', f" {KEY.secret}\r\n")

    assert answer["id"] == "d"


async def test_a_key_of_an_operators_own_making_is_sent() -> None:
    own = "made.by+hand/of_somebody=="
    app = create_app(
        RecordingQueue(), Metrics(), ApiKeys((f"shop:{sha256(own.encode()).hexdigest()}",))
    )
    async with serve(app, host="127.0.0.1", port=0, setting="X") as port:
        url = f"http://127.0.0.1:{port}"

        answer = await post(url, b'{"users":["42"],"type":"t","id":"a"}', f"{own}\n")

    assert answer["id"] == "a"


def test_only_seconds_are_read_from_retry_after() -> None:
    read = [seconds_in(each) for each in (None, "", "7", "Wed, 21 Oct 2026 07:28:00 GMT", "-1")]

    assert read == [0, 0, 7, 0, 0]

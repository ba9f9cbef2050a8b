"""`notifier dev`, and what a newcomer does with it in the first minute."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis

from notifier.api.keys import new_key
from tests.support.clients import connected
from tests.support.commands import Listener, run
from tests.support.process import free_port, wait_until
from tests.support.producers import amqp_producer, http_producer
from tests.support.roles import Role, running


@contextmanager
def listening(dev: Role, directory: Path, user: str, *options: str) -> Iterator[Listener]:
    """Somebody at a terminal, connected."""
    address = ("--url", dev.gateway_url, "--user", user)
    with Listener(directory / "listen.log", *address, *options) as listener:
        listener.wait_for(f"listening as {user}")
        yield listener


def printed_curl(dev: Role) -> str:
    """The command that `dev` prints, over two lines."""
    match = re.search(r"^ +Send an event +(curl .*\\\n.*)$", dev.output(), re.MULTILINE)
    assert match is not None, dev.output()
    return match[1]


def token_of(dev: Role, user: str) -> str:
    answer = httpx.post(f"{dev.page_url}dev/token", json={"user": user})
    return str(answer.json()["token"])


def test_the_page_is_where_it_says(dev: Role) -> None:
    match = re.search(r"The page +(\S+)", dev.output())
    assert match is not None

    page = httpx.get(match[1])

    assert page.status_code == 200
    assert "<h1" in page.text


def test_the_curl_line_delivers_when_pasted(dev: Role, tmp_path: Path) -> None:
    with listening(dev, tmp_path, "42", "--count", "1") as listener:
        subprocess.run(printed_curl(dev), shell=True, check=True, timeout=30)  # noqa: S602

        assert listener.wait() == 0
        assert [event["data"] for event in listener.events] == [{"text": "hello"}]


async def test_the_printed_token_is_one_of_user_42(dev: Role) -> None:
    match = re.search(r"A token of 42 +(\S+)", dev.output())
    assert match is not None

    async with connected(dev.gateway_url, match[1]) as client:
        assert client.frames[0]["user"] == "42"


def test_send_takes_an_event_from_its_arguments(dev: Role, tmp_path: Path) -> None:
    with listening(dev, tmp_path, "anna", "--count", "1") as listener:
        order = ("--type", "order.paid", "--data", '{"order": 7}', "--id", "o-7")
        sent = run("send", "--url", dev.api_url, "--user", "anna", *order)

        assert json.loads(sent.stdout) == {"id": "o-7"}
        assert listener.wait() == 0
        event = listener.events[0]
        assert (event["type"], event["data"], event["id"]) == ("order.paid", {"order": 7}, "o-7")


def test_dev_says_that_it_checks_no_key_and_checks_those_that_it_is_given(
    dev: Role, tmp_path: Path
) -> None:
    key = new_key("billing")
    strict = Role("dev", tmp_path / "dev.log", NOTIFIER_API_KEYS=key.entry)
    with running(strict):
        wrong = run("send", "--url", strict.api_url, "--user", "42", "--key", "wrong")
        right = run("send", "--url", strict.api_url, "--user", "42", "--key", key.secret)
    unchecked = run("send", "--url", dev.api_url, "--user", "42", "--key", "wrong")

    assert "API keys       none needed, none checked" in dev.output()
    assert "API keys       those of NOTIFIER_API_KEYS" in strict.output()
    assert (wrong.returncode, right.returncode, unchecked.returncode) == (1, 0, 0)
    assert "this API key is not known" in wrong.stderr
    wait_until(lambda: "api_key_not_checked" in dev.output(), seconds=10, otherwise=dev.log_tail)


def test_send_takes_a_batch_from_standard_input(dev: Role, tmp_path: Path) -> None:
    batch = [{"users": ["bert"], "type": "step", "id": name} for name in ("one", "two")]
    with listening(dev, tmp_path, "bert", "--count", "2") as listener:
        sent = run("send", "--url", dev.api_url, stdin=json.dumps(batch))

        assert [result["id"] for result in json.loads(sent.stdout)["results"]] == ["one", "two"]
        assert listener.wait() == 0
        assert sorted(event["id"] for event in listener.events) == ["one", "two"]


def test_send_says_what_is_wrong_with_an_event(dev: Role) -> None:
    sent = run("send", "--url", dev.api_url, "--user", "two words")

    assert sent.returncode == 1
    assert "422: users[0]: must be 1 to 128" in sent.stderr


def test_send_takes_an_empty_id_for_a_mistake_and_not_for_none(dev: Role) -> None:
    sent = run("send", "--url", dev.api_url, "--user", "carl", "--id", "")

    assert sent.returncode == 1
    assert "422: id: " in sent.stderr


def test_listen_ends_where_coming_back_cannot_help(dev: Role) -> None:
    listened = run("listen", "--user", "carl", "--url", dev.page_url)

    assert listened.returncode == 1
    assert listened.stderr.startswith("no address of a gateway (ws://, wss://): http://")


def test_listen_does_not_show_one_users_events_as_anothers(dev: Role) -> None:
    others = token_of(dev, "dora")
    listened = run("listen", "--user", "carl", "--url", dev.gateway_url, "--token", others)

    assert (listened.returncode, listened.stdout) == (1, "")
    assert listened.stderr.strip() == "the token is of user dora, not of carl"


async def test_token_prints_one_that_the_gateway_takes(dev: Role) -> None:
    printed = run("token", "--user", "carl", "--url", dev.page_url).stdout

    async with connected(dev.gateway_url, printed.strip(), topics=["news"]) as client:
        assert client.frames[0]["user"] == "carl"
        assert list(client.frames[0]["topics"]) == ["user:carl", "everyone", "news"]


def test_listen_comes_back_to_a_restarted_dev_and_is_told_of_the_gap(tmp_path: Path) -> None:
    ports = {"NOTIFIER_GATEWAY_PORT": str(free_port()), "NOTIFIER_API_PORT": str(free_port())}
    dev = Role("dev", tmp_path / "dev.log", **ports)
    with running(dev), listening(dev, tmp_path, "dora", "--count", "2") as listener:
        run("send", "--url", dev.api_url, "--user", "dora", "--id", "before")
        listener.wait_for('"id": "before"')

        assert dev.stop() == 0
        listener.wait_for("nothing answers at")
        dev.start()
        listener.wait_for("listening as dora", times=2)
        run("send", "--url", dev.api_url, "--user", "dora", "--id", "after")

        assert listener.wait() == 0
        assert [event["id"] for event in listener.events] == ["before", "after"]
        listener.wait_for('gap: {"type": "gap", "topic": "user:dora"')
        listener.wait_for("closed with 4000 draining; coming back in")


async def test_dev_uses_the_real_rabbitmq_and_redis_where_they_are_given(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    given = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    dev = Role("dev", tmp_path / "dev.log", **given)
    with running(dev):
        async with (
            connected(dev.gateway_url, token_of(dev, "emil")) as client,
            http_producer(dev.api_url) as http,
            amqp_producer(amqp_url) as amqp,
        ):
            await http.send({"users": ["emil"], "type": "t", "id": "by-http"})
            await amqp.send({"type": "t", "id": "by-amqp"}, "user.emil")

            assert [event["id"] for event in await client.next_events(2)] == ["by-http", "by-amqp"]
    with redis.Redis.from_url(redis_url) as keys:
        assert keys.xlen("notifier:{user:emil}:log") == 2

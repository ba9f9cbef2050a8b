"""`notifier dev`, and what a newcomer does with it in the first minute."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import redis

from notifier.api.keys import new_key
from tests.support.clients import connected
from tests.support.commands import Listener, notifier, run
from tests.support.process import free_port, wait_until
from tests.support.producers import amqp_producer, http_producer
from tests.support.roles import Role, running
from tests.support.tls import NO_AUTHORITIES


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
    answer = httpx.post(f"{dev.page_url}dev/token", json={"user": user}, verify=NO_AUTHORITIES)
    return str(answer.json()["token"])


def test_the_page_is_where_it_says(dev: Role) -> None:
    match = re.search(r"The page +(\S+)", dev.output())
    assert match is not None

    page = httpx.get(match[1], verify=NO_AUTHORITIES)

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
    assert wrong.stderr.rstrip().endswith("this API key is not known")
    wait_until(lambda: "api_key_not_checked" in dev.output(), seconds=10, otherwise=dev.log_tail)


def test_send_takes_a_batch_from_standard_input(dev: Role, tmp_path: Path) -> None:
    batch = [{"users": ["bert"], "type": "step", "id": name} for name in ("one", "two")]
    with listening(dev, tmp_path, "bert", "--count", "2") as listener:
        sent = run("send", "--url", dev.api_url, stdin=json.dumps(batch))

        assert [result["id"] for result in json.loads(sent.stdout)["results"]] == ["one", "two"]
        assert listener.wait() == 0
        assert sorted(event["id"] for event in listener.events) == ["one", "two"]


ORDER = ("--user", "ines", "--type", "order.paid")


@pytest.mark.parametrize(
    ("options", "stdin"),
    [
        (("--data", '{"order": 7.0}'), ""),
        (("--data", "-"), '{"order": 7.0}\n'),
        (("--data", "@order.json"), ""),
        ((), '\ufeff{"order": 7.0}\n'),
    ],
)
def test_an_events_data_comes_from_the_option_a_file_or_standard_input(
    dev: Role, tmp_path: Path, options: tuple[str, ...], stdin: str
) -> None:
    Path("order.json").write_text('\n{"order": 7.0}\n')

    with listening(dev, tmp_path, "ines", "--count", "1") as listener:
        sent = run("send", "--url", dev.api_url, *ORDER, *options, stdin=stdin)

        assert (sent.returncode, sent.stderr) == (0, "")
        assert listener.wait() == 0
        assert '"data": {"order": 7.0}' in json.dumps(listener.events[0])


@pytest.mark.parametrize(
    ("options", "stdin", "said"),
    [
        (("--data", "hello"), "", "--data: not JSON from byte 0 on; write text as --data '\"text"),
        (("--data", ""), "", "--data: not JSON: there is nothing in it"),
        (("--data", "-"), "{", "--data - (standard input): not JSON"),
        (("--data", "@missing.json"), "", "--data @missing.json: No such file or directory; name"),
        ((), "anna\nbert\n", "standard input, the event's data: not JSON"),
        ((), "8\n", "must be a JSON object or list; --data - takes any JSON"),
        (("--ttl", "0"), "", "must be a number of seconds above 0"),
        (("--ttl", "nan"), "", "must be a number of seconds above 0"),
    ],
)
def test_data_that_cannot_be_sent_is_refused_with_the_rule_and_the_remedy(
    dev: Role, options: tuple[str, ...], stdin: str, said: str
) -> None:
    sent = run("send", "--url", dev.api_url, *ORDER, *options, stdin=stdin)

    assert (sent.returncode, sent.stdout) == (2, "")
    assert said in sent.stderr


def test_a_script_on_standard_input_is_left_to_the_shell(dev: Role, tmp_path: Path) -> None:
    users = tmp_path / "users"
    users.write_text("nora\nolga\n")
    send = f"{shlex.join(notifier('send', '--url', dev.api_url, '--type', 't'))} --user $user"
    script = f'while read user; do {send} || exit 1; done <"{users}"'

    done = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout.count('{"id": ') == 2


def test_send_takes_one_event_a_line_as_they_come(dev: Role, tmp_path: Path) -> None:
    with (
        listening(dev, tmp_path, "jana", "--count", "3") as listener,
        subprocess.Popen(
            notifier("send", "--url", dev.api_url, "--type", "t", "--source", "shop"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as sending,
    ):
        assert sending.stdin is not None
        assert sending.stdout is not None
        for number in range(2):
            print(f'{{"users": ["jana"], "id": "j-{number}"}}', file=sending.stdin, flush=True)
            assert json.loads(sending.stdout.readline()) == {"id": f"j-{number}"}
        sending.stdin.write('\r\n{"users": ["jana"], "id": "j-2", "type": "own"}')
        sending.stdin.close()

        assert sending.wait(30) == 0
        assert listener.wait() == 0
    assert [(e["id"], e["type"], e["source"]) for e in listener.events] == [
        ("j-0", "t", "shop"),
        ("j-1", "t", "shop"),
        ("j-2", "own", "shop"),
    ]


def test_more_lines_than_a_batch_holds_are_all_sent_in_their_order(
    dev: Role, tmp_path: Path
) -> None:
    lines = [json.dumps({"users": ["kira"], "type": "t", "id": f"k-{n}"}) for n in range(1100)]
    with listening(dev, tmp_path, "kira", "--count", "1100") as listener:
        sent = run("send", "--url", dev.api_url, stdin="\n".join(lines))

        assert [json.loads(line)["id"] for line in sent.stdout.splitlines()] == [
            f"k-{n}" for n in range(1100)
        ]
        assert listener.wait() == 0


@pytest.mark.parametrize(
    ("bad", "said", "code", "after"),
    [
        ('{"users": ["a b"], "type": "t"}', "line 3 of standard input: users[0]: must be", 1, True),
        ('{"users": ', "line 3 of standard input: not JSON", 2, False),
        ("7", "line 3 of standard input: must be a JSON object", 2, False),
    ],
)
def test_a_bad_line_is_named_and_the_lines_before_it_are_sent(
    dev: Role, bad: str, said: str, code: int, *, after: bool
) -> None:
    lines = [json.dumps({"users": ["lisa"], "type": "t", "id": f"l-{n}"}) for n in range(3)]

    sent = run(
        "send", "--url", dev.api_url, stdin="\n".join([lines[0], lines[1], bad, lines[2], ""])
    )

    assert sent.returncode == code
    assert said in sent.stderr
    ids = [json.loads(line)["id"] for line in sent.stdout.splitlines()]
    assert ids == ["l-0", "l-1", *(["l-2"] if after else [])]


def test_send_takes_source_lifetime_and_collapse_key(dev: Role, tmp_path: Path) -> None:
    options = ("--source", "/shop", "--ttl", "60", "--collapse-key", "order-7", "--silent")
    with listening(dev, tmp_path, "maja", "--frames", "--count", "1") as listener:
        sent = run("send", "--url", dev.api_url, "--user", "maja", *options)

        assert sent.returncode == 0, sent.stderr
        assert listener.wait() == 0
    event = listener.events[-1]["event"]
    assert event["source"] == "/shop"
    assert event["silent"] is True
    assert "expires" in event


@pytest.mark.parametrize("option", [("--id", "o-7"), ("--data", "{}")])
def test_an_option_of_one_event_is_refused_without_its_audience(
    dev: Role, option: tuple[str, str]
) -> None:
    sent = run("send", "--url", dev.api_url, *option, stdin='{"users": ["1"], "type": "t"}')

    assert sent.returncode == 2
    assert f"{option[0]}: belongs to one event; name its audience" in sent.stderr


def test_a_post_to_the_gateways_port_says_where_the_api_is(dev: Role) -> None:
    sent = run("send", "--url", dev.page_url, "--user", "nina")

    assert sent.returncode == 1
    assert "posted to the api, on port 8001 by default (NOTIFIER_API_PORT)" in sent.stderr


def test_a_token_is_asked_of_dev_only(dev: Role) -> None:
    printed = run("token", "--user", "nina", "--url", dev.api_url)

    assert printed.returncode == 1
    assert "Only `notifier dev` gives tokens: name one in --url" in printed.stderr


@pytest.mark.parametrize("url", ["127.0.0.1:8001", "ws://127.0.0.1:8001", "http://", ""])
def test_an_address_without_a_scheme_of_http_is_refused(url: str) -> None:
    sent = run("send", "--user", "nina", "--url", url)

    assert sent.returncode == 1
    assert sent.stderr.startswith("url: ")
    assert "begins with http:// or https://" in sent.stderr


def test_listen_ends_when_nobody_reads_it_any_more_without_a_second_event(
    dev: Role, tmp_path: Path
) -> None:
    listen = shlex.join(notifier("listen", "--user", "olga", "--url", dev.gateway_url))
    log = tmp_path / "stderr.log"
    script = f'timeout 40 {listen} 2>"{log}" | head -n 1; exit ${{PIPESTATUS[0]}}'
    with subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True) as piped:
        wait_until(
            lambda: "listening as olga" in log.read_text() if log.exists() else False,
            seconds=30,
            otherwise=lambda: "it does not listen",
        )
        run("send", "--url", dev.api_url, "--user", "olga", "--id", "o-1")

        assert piped.wait(30) == 141
        assert piped.stdout is not None
        assert json.loads(piped.stdout.read())["id"] == "o-1"
    assert log.read_text() == "listening as olga\n"


def test_send_tells_the_fault_of_an_event(dev: Role) -> None:
    sent = run("send", "--url", dev.api_url, "--user", "two words")

    assert sent.returncode == 1
    assert "422: users[0]: must be 1 to 128" in sent.stderr


def test_send_takes_an_empty_id_for_a_mistake_and_not_for_none(dev: Role) -> None:
    sent = run("send", "--url", dev.api_url, "--user", "carl", "--id", "")

    assert sent.returncode == 1
    assert "422: id: " in sent.stderr


def test_listen_ends_where_coming_back_cannot_help() -> None:
    listened = run("listen", "--user", "carl", "--url", "push.example", "--token", "t")

    assert listened.returncode == 1
    assert listened.stderr.startswith("no address of a gateway, such as https://push.example: p")


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


def test_listen_reconnects_to_a_restarted_dev_and_gets_a_gap(tmp_path: Path) -> None:
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

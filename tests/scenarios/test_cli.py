"""The command: it teaches, and what it prints can be used."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from notifier.commands.pipes import ending_unread
from notifier.settings import CLIENT_VARIABLES, Settings, variable
from tests.support.commands import notifier, run
from tests.support.process import free_port
from tests.support.producers import http_producer
from tests.support.roles import TOKENS, Role, running
from tests.support.tls import NO_AUTHORITIES, made_pair

GATEWAY = {**TOKENS, "NOTIFIER_JWT_SECRET": "s" * 64}
CLAIMS = {"JWT_ISSUER": "https://issuer.example/", "JWT_AUDIENCE": "notifier"}
COMMANDS = {
    "gateway": "NOTIFIER_JWT_SECRET",
    "router": "NOTIFIER_AMQP_URL",
    "api": "NOTIFIER_API_KEYS",
    "dev": "nothing to install",
    "send": "notifier send --user 42 --type order.paid",
    "listen": "back by itself",
    "token": "development token",
    "key": "API key",
    "check": "what to mend",
    "settings": "every setting",
    "metrics": "every metric",
    "topology": "rabbitmqctl import_definitions",
}


def test_help_names_each_command_and_the_one_to_begin_with() -> None:
    said = run("--help").stdout

    assert "with nothing installed:    notifier dev" in said
    for command in COMMANDS:
        assert f"\n  {command} " in said


@pytest.mark.parametrize(("command", "lesson"), COMMANDS.items())
def test_the_help_of_each_command_is_enough_to_use_it(command: str, lesson: str) -> None:
    said = run(command, "--help").stdout

    assert lesson in " ".join(said.split())


def test_settings_lists_every_variable_with_its_default_and_meaning() -> None:
    said = run("settings").stdout

    for name, field in Settings.model_fields.items():
        assert f"{variable(name)}" in said
        assert field.description
        assert field.description in said
    for name in CLIENT_VARIABLES:
        assert name in said
    assert "NOTIFIER_GATEWAY_PORT = 8000\n" in said


@pytest.mark.parametrize("group", ["", "users", "events", "letters"])
def test_no_summary_of_a_command_is_cut_off(group: str) -> None:
    _, summaries = run(*group.split(), "--help").stdout.split("\nCommands:\n")

    assert "..." not in summaries


@pytest.mark.parametrize("command", ["--help", "settings", "metrics", "settings --markdown"])
def test_a_command_that_nobody_reads_ends_quietly(command: str) -> None:
    closed, output = os.pipe()
    os.close(closed)

    ended = subprocess.run(
        notifier(*command.split()), stdout=output, stderr=subprocess.PIPE, check=False
    )
    os.close(output)

    assert (ended.returncode, ended.stderr) == (141, b"")


@pytest.mark.parametrize("command", ["--help", "settings", "topology"])
def test_a_full_disk_is_told(command: str) -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            notifier(*command.split()), stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert ended.returncode == 1
    assert ended.stderr == b"the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("user", ["#", "*", "a b", "x" * 300])
def test_reports_are_asked_for_by_a_user_that_can_be(user: str) -> None:
    ended = run("reports", "--user", user)

    assert ended.returncode == 1
    assert ended.stderr.startswith("--user: must be ")


def test_another_file_that_is_full_is_not_called_the_output() -> None:
    with pytest.raises(OSError, match="No space left"), ending_unread():
        raise OSError(errno.ENOSPC, "No space left on device", "settings.env")


@pytest.mark.parametrize(
    "key",
    ["a b", "ü", "a\n\nb"],
)
def test_a_key_that_can_be_none_is_told_and_not_repeated(key: str) -> None:
    ended = run("send", "--user", "42", "--url", "http://127.0.0.1:1", "--key", key)

    assert ended.returncode == 1
    assert ended.stderr.startswith("key: an API key has neither white space nor ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        "send --user 42 --url http://127.0.0.1:1",
        "users revoke 42 --url http://127.0.0.1:1",
        "listen --user 42 --url http://127.0.0.1:1",
    ],
)
def test_a_proxy_that_cannot_be_used_is_told(command: str) -> None:
    ended = run(*command.split(), ALL_PROXY="socks5://127.0.0.1:1", NO_PROXY="")

    assert ended.returncode == 1
    assert ended.stderr.startswith("the proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be")
    assert ended.stderr.count("\n") == 1


def test_an_argument_that_is_no_text_is_told() -> None:
    words = [*map(os.fsencode, notifier("send", "--user", "42", "--type")), b"gr\xf6sse"]
    ended = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)

    assert ended.returncode == 2
    assert ended.stderr == b"type: is not text in the encoding of this terminal (LANG, LC_ALL)\n"


@pytest.mark.parametrize("command", ["--version", "--help", "send --help", "listen --help"])
def test_a_command_imports_nothing_that_it_does_not_need(command: str) -> None:
    heavy = {"fastapi", "pydantic", "redis", "httpx", "uvicorn", "jwt", "structlog"}
    script = (
        "import sys; from notifier.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", script, *command.split()], capture_output=True, text=True, check=True
    )

    assert not heavy.intersection(ended.stderr.split())


def test_settings_can_be_printed_for_the_documents() -> None:
    rows = run("settings", "--markdown").stdout.splitlines()[2:]

    assert len(rows) == len(Settings.model_fields) + len(CLIENT_VARIABLES)
    assert all(row.count("|") == 4 for row in rows)


async def test_a_key_that_key_makes_is_taken_and_another_is_not(
    tmp_path: Path, amqp_url: str
) -> None:
    for_producer, for_settings = run("key", "--name", "billing").stdout.splitlines()
    secret, entry = for_producer.split()[-1], for_settings.split()[-1]
    settings = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_API_KEYS": entry}
    api = Role("api", tmp_path / "api.log", **settings)
    event = {"users": ["42"], "type": "t"}
    with running(api):
        async with http_producer(api.api_url, secret) as good:
            assert (await good.post(event)).status_code == 202
        async with http_producer(api.api_url, secret[:-1]) as bad:
            assert (await bad.post(event)).status_code == 401
        sent = run("send", "--user", "42", "--url", api.api_url, NOTIFIER_API_KEY=secret)

    assert list(json.loads(sent.stdout)) == ["id"]


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_router_that_may_declare_nothing_runs_on_the_printed_topology(
    tmp_path: Path, amqp_url: str, amqp_management_url: str, redis_url: str, partitions: int
) -> None:
    settings = {"NOTIFIER_PARTITIONS": str(partitions)}
    printed = json.loads(run("topology", **settings).stdout)
    vhost, user = urlsplit(amqp_url).path[1:], urlsplit(amqp_url).username
    only_use = {"configure": "^$", "write": ".*", "read": ".*"}
    with httpx.Client(
        base_url=amqp_management_url, timeout=30, verify=NO_AUTHORITIES
    ) as management:
        imported = management.post(f"/api/definitions/{vhost}", json=printed)
        management.put(f"/api/permissions/{vhost}/{user}", json=only_use).raise_for_status()
    assert imported.is_success, imported.text

    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    with running(Role("router", tmp_path / "router.log", **backends, **settings)):
        pass


@pytest.mark.parametrize("command", ["check", "check --role gateway", "gateway"])
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"JWKS_URL": "http://issuer.example/keys"}, "must begin with https://"),
        ({"JWKS_URL": "https://"}, "must begin with https://"),
        ({"JWKS_URL": "https://xn--/keys"}, "the address of the keys is no URL"),
        ({"JWT_DISCOVERY_URL": "http://issuer.example/"}, "must begin with https://"),
        ({"JWT_PUBLIC_KEY": "none"}, "there is no PEM block"),
    ],
)
def test_keys_of_tokens_that_cannot_be_are_told(
    command: str, settings: dict[str, str], said: str
) -> None:
    given = {f"NOTIFIER_{name}": value for name, value in {**settings, **CLAIMS}.items()}

    ended = run(*command.split(), **given)

    *_, line = ended.stderr.splitlines()  # a role has logged that it starts
    assert said in line
    assert line.startswith(f"NOTIFIER_{next(iter(settings))}: ")
    assert "Traceback" not in ended.stderr
    assert ended.returncode == 2


@pytest.mark.parametrize("command", ["check", "check --role gateway", "gateway"])
def test_a_certificate_that_cannot_be_is_told(command: str) -> None:
    pair, other = made_pair(), made_pair()
    given = {"NOTIFIER_TLS_CERTIFICATE": pair.certificate, "NOTIFIER_TLS_KEY": other.key}

    ended = run(*command.split(), **given, **GATEWAY)

    *_, line = ended.stderr.splitlines()
    reason = "the key is not that of the first certificate"
    assert line == f"NOTIFIER_TLS_CERTIFICATE, NOTIFIER_TLS_KEY: {reason}"
    assert ended.returncode == 2


@pytest.mark.parametrize(
    ("hours", "level", "said"),
    [
        (-1, "error", "it has expired, so no client connects"),
        (13 * 24 + 1, "warning", "it expires in 13 days"),
        (40 * 24 + 1, "ok", "it expires in 40 days"),
    ],
)
def test_check_says_when_the_gateway_s_certificate_expires(
    hours: float, level: str, said: str
) -> None:
    pair = made_pair(hours)
    in_one_line = {
        "NOTIFIER_TLS_CERTIFICATE": pair.certificate.replace("\n", "\\n"),
        "NOTIFIER_TLS_KEY": pair.key.replace("\n", "\\n"),
    }
    nobody = f"redis://127.0.0.1:{free_port()}/0"

    ended = run(
        *("check", "--role", "gateway"),
        **in_one_line,
        **GATEWAY,
        NOTIFIER_REDIS_URL=nobody,
    )

    [line] = [line for line in ended.stdout.splitlines() if " certificate " in line]
    assert line.split(maxsplit=2) == [level, "certificate", said]


def test_check_says_that_keys_cannot_be_fetched_through_a_proxy_of_another_kind() -> None:
    keys = {"NOTIFIER_JWKS_URL": "https://127.0.0.1:1/keys"}

    ended = run("check", **keys, ALL_PROXY="socks5://127.0.0.1:1", NO_PROXY="")

    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "NOTIFIER_JWKS_URL: the keys cannot be fetched: the proxy of HTTP"
    )


def test_check_lists_the_scopes_of_each_api_key(amqp_url: str, redis_url: str) -> None:
    entries = f"billing:{'a' * 64}:post:billing.*;user:*,support:{'b' * 64}:read+control"

    backends = {"NOTIFIER_AMQP_URL": amqp_url, "NOTIFIER_REDIS_URL": redis_url}
    said = run("check", "--role", "api", **backends, NOTIFIER_API_KEYS=entries).stdout

    assert "api key" in said
    assert "billing may post, for billing.*, user:*" in said
    assert "support may read and control, for every audience" in said


def test_a_token_names_the_topics_to_follow_and_to_publish_to() -> None:
    secret = "a-secret-that-only-this-test-knows-of"
    said = run(
        *("token", "--user", "42", "--topic", "news", "--publish", "room:*", "--publish", "doc:7"),
        NOTIFIER_JWT_SECRET=secret,
    )

    claims = jwt.decode(said.stdout.strip(), secret, ["HS256"], options={"verify_aud": False})
    assert (claims["topics"], claims["publish"]) == (["news"], ["room:*", "doc:7"])

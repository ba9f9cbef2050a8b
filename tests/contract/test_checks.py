"""`notifier check` looks at a real Redis and a real RabbitMQ, fit for use or not."""

import asyncio
import functools
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from urllib.parse import quote, unquote, urlsplit

import aio_pika
import aiormq
import httpx
import pytest
import redis
from aiormq.abc import DeliveredMessage

from notifier.adapters.rabbitmq.check import check_rabbitmq
from notifier.adapters.rabbitmq.declaring import declare, declare_returns
from notifier.adapters.rabbitmq.errors import TopologyError
from notifier.adapters.rabbitmq.topology import definitions
from notifier.adapters.redis.check import check_redis
from notifier.core.findings import Finding
from tests.support import services
from tests.support.process import free_port, wait_until
from tests.support.services import RabbitServer, RedisServer, version_of
from tests.support.tls import NO_AUTHORITIES

RECOMMENDED = {
    "appendonly": "yes",
    "maxmemory_policy": "noeviction",
    "stream_node_max_bytes": "1024",
    "client_output_buffer_limit": "pubsub 64mb 16mb 30",
}
RIGHTS = "~notifier:* &notifier:* +@all -@dangerous +info +config|get"
PASSWORD = "never-to-be-seen"
UNCHECKED = "types and policies of queues were not checked"
# Class and method of AMQP's frames.
OPEN_CHANNEL = b"\x00\x14\x00\x0a"
PUBLISH = b"\x00\x3c\x00\x28"


def about(subject: str, findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings if finding.subject == subject]


def place(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]


def with_user(url: str, user: str, password: str = PASSWORD) -> str:
    return urlsplit(url)._replace(netloc=f"{user}:{password}@{place(url)}").geturl()


def at(url: str, other_place: str) -> str:
    return url.replace(place(url), other_place)


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A place where connections are taken and nothing ever answers."""
    taken: list[asyncio.StreamWriter] = []

    def take(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)

    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for writer in taken:
            writer.close()


@asynccontextmanager
async def deaf_after(frame: bytes, url: str) -> AsyncIterator[str]:
    """The URL of a RabbitMQ that takes such a frame, and reads nothing more from its sender."""
    host, port = place(url).split(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b"."
        while data and frame not in data:
            data = await reader.read(65536)
            writer.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_connection(host, port)
        ends.extend((ahead, writer))
        await asyncio.gather(forward(reader, ahead), forward(behind, writer))

    def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.append(asyncio.create_task(relay(reader, writer), name="relay"))

    ends: list[asyncio.StreamWriter] = []
    relays: list[asyncio.Task[None]] = []
    async with await asyncio.start_server(take, "127.0.0.1", 0) as server:
        yield at(url, f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for end in ends:
            end.close()
        await asyncio.gather(*relays)


class TestRedis:
    pytestmark = pytest.mark.services

    @pytest.fixture
    def server(self) -> Iterator[RedisServer]:
        with RedisServer(**RECOMMENDED) as server:
            yield server

    @pytest.fixture
    def operator(self, server: RedisServer) -> Iterator[redis.Redis]:
        with closing(redis.Redis.from_url(server.url, decode_responses=True)) as client:
            yield client

    async def test_redis_as_recommended_is_fit(self, server: RedisServer) -> None:
        findings = await check_redis(server.url)

        assert {finding.level for finding in findings} == {"ok"}
        assert about("redis", findings) == [("ok", f"{place(server.url)} answers")]

    async def test_a_check_leaves_nothing_behind(
        self, server: RedisServer, operator: redis.Redis
    ) -> None:
        await check_redis(server.url)

        assert operator.keys() == []
        assert operator.pubsub_channels() == []

    @pytest.mark.parametrize(
        ("setting", "found"),
        [
            ("maxmemory-policy allkeys-lru", ("error", "redis memory")),
            ("maxmemory 1", ("warning", "redis memory")),
            ("maxmemory 1", ("error", "redis scripts")),
            ("appendonly no", ("warning", "redis persistence")),
            ("stream-node-max-bytes 4096", ("warning", "redis memory")),
            ("client-output-buffer-limit pubsub 32mb 8mb 60", ("warning", "redis pub/sub")),
            ("min-replicas-to-write 1", ("error", "redis scripts")),
        ],
    )
    async def test_a_setting_that_does_not_fit_is_found(
        self, server: RedisServer, operator: redis.Redis, setting: str, found: tuple[str, str]
    ) -> None:
        operator.config_set(*setting.split(maxsplit=1))

        findings = await check_redis(server.url)

        assert found in [(finding.level, finding.subject) for finding in findings]

    async def test_a_replica_takes_no_publications(
        self, server: RedisServer, operator: redis.Redis
    ) -> None:
        operator.replicaof("127.0.0.1", "1")

        findings = await check_redis(server.url)

        assert about("redis role", findings) == [
            ("error", "is a replica: it takes no publications")
        ]

    async def test_a_cluster_is_not_supported(self) -> None:
        # By itself the cluster takes a port 10,000 above, which an outgoing connection may have.
        with RedisServer(cluster_enabled="yes", cluster_port=str(free_port())) as server:
            findings = await check_redis(server.url)

        assert about("redis cluster", findings) == [("error", "cluster mode is not supported yet")]

    async def test_the_rights_that_it_recommends_are_enough(
        self, server: RedisServer, operator: redis.Redis
    ) -> None:
        grant(operator, RIGHTS)

        findings = await check_redis(with_user(server.url, "app"))

        assert {finding.level for finding in findings} == {"ok"}

    @pytest.mark.parametrize(
        ("rights", "level", "text"),
        [
            ("-info", "warning", "not checked: version, role, memory and persistence"),
            ("-config", "warning", "not checked: stream-node-max-bytes, client-output-buffer-"),
            ("-eval", "error", "refuses the script of a publication"),
            ("-xadd", "error", "refuses the script of a publication"),
            ("resetkeys ~other:*", "error", "refuses the script of a publication"),
            ("resetchannels", "error", "refuses the script of a publication"),
            ("resetchannels", "error", "refuses to subscribe"),
            ("-ping", "error", "127.0.0.1:"),
        ],
    )
    async def test_a_missing_right_is_found_and_its_grant_is_told(
        self, server: RedisServer, operator: redis.Redis, rights: str, level: str, text: str
    ) -> None:
        grant(operator, f"{RIGHTS} {rights}")

        findings = await check_redis(with_user(server.url, "app"))

        [finding] = [finding for finding in findings if finding.text.startswith(text)]
        assert finding.level == level
        assert RIGHTS in finding.mend

    async def test_a_refused_password_is_not_printed(self, server: RedisServer) -> None:
        findings = await check_redis(with_user(server.url, "app"))

        [finding] = findings
        assert finding.text.startswith(f"{place(server.url)} refuses the user or the password")
        assert PASSWORD not in str(finding)

    async def test_a_password_that_crosses_the_network_in_clear_is_a_warning(
        self, server: RedisServer, operator: redis.Redis
    ) -> None:
        grant(operator, RIGHTS)
        url = server.url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104  # leads here, but is no loopback

        findings = await check_redis(with_user(url, "app"))

        assert [finding.text for finding in findings if finding.level != "ok"] == [
            "the password for 0.0.0.0 crosses the network in clear"
        ]

    async def test_a_redis_that_is_not_there_is_named_by_host_and_port(self) -> None:
        nowhere = f"127.0.0.1:{free_port()}"

        [finding] = await check_redis(f"redis://:{PASSWORD}@{nowhere}/0")

        assert finding.text.startswith(f"{nowhere} is out of reach")
        assert PASSWORD not in str(finding)

    async def test_a_redis_that_hangs_is_given_up(self) -> None:
        async with silent_server() as somewhere:
            findings = await check_redis(f"redis://{somewhere}/0")

        assert about("redis", findings) == [("error", f"{somewhere} gave no answer within 3 s")]


def grant(operator: redis.Redis, rights: str) -> None:
    command = ("ACL", "SETUSER", "app", "on", f">{PASSWORD}", *rights.split())
    operator.execute_command(*command)  # type: ignore[no-untyped-call]


class TestRabbitMQ:
    @pytest.fixture
    def vhost(self, amqp_url: str) -> str:
        return unquote(urlsplit(amqp_url).path[1:])

    @pytest.fixture
    def management(self, amqp_management_url: str) -> Iterator[httpx.Client]:
        with httpx.Client(
            base_url=amqp_management_url, timeout=30, verify=NO_AUTHORITIES
        ) as client:
            yield client

    @pytest.fixture
    def limited_url(self, amqp_url: str, vhost: str, management: httpx.Client) -> Iterator[str]:
        """The same RabbitMQ for a user with rights to notifier's own names, and no tags."""
        name = f"test-{secrets.token_hex(6)}"
        management.put(f"/api/users/{name}", json={"password": PASSWORD, "tags": ""})
        rights = dict.fromkeys(("configure", "write", "read"), r"^notifier\..*")
        management.put(f"/api/permissions/{quote(vhost, '')}/{name}", json=rights)
        yield with_user(amqp_url, name)
        management.delete(f"/api/users/{name}")

    async def test_the_output_of_the_topology_command_is_fit_once_routers_consume(
        self, amqp_url: str, amqp_management_url: str, vhost: str, management: httpx.Client
    ) -> None:
        await asyncio.to_thread(import_definitions, management, vhost)

        async with consumers(
            amqp_url,
            "notifier.events.0",
            "notifier.events.1",
            "notifier.unroutable",
            "notifier.aside",
        ):
            findings = await check_rabbitmq(
                amqp_url, partitions=2, management_url=amqp_management_url
            )

        assert [finding for finding in findings if finding.level != "ok"] == []
        assert about("notifier.events.1", findings) == [
            ("ok", "routers consuming: 1; events waiting: 0")
        ]
        assert about("rabbitmq queues", findings) == [
            ("ok", "types and policies are as they should be")
        ]

    async def test_a_check_leaves_no_task_and_so_no_connection(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        before = asyncio.all_tasks()

        await check_rabbitmq(amqp_url, partitions=2, management_url=amqp_management_url)
        await check_rabbitmq(with_user(amqp_url, "x"), partitions=2, management_url=None)

        if left := asyncio.all_tasks() - before:  # those of aiormq that are just ending
            _, left = await asyncio.wait(left, timeout=5)
        assert left == set()

    async def test_before_the_first_router_nothing_is_there_and_the_check_makes_nothing(
        self, amqp_url: str, amqp_management_url: str, vhost: str, management: httpx.Client
    ) -> None:
        findings = await check_rabbitmq(amqp_url, partitions=2, management_url=amqp_management_url)

        assert about("notifier.events", findings) == [("warning", "the exchange is not there yet")]
        assert [name for name in exchanges(management, vhost) if "notifier" in name] == []

    async def test_queues_without_routers_and_queues_that_are_missing_are_found(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            await declare(connection, 1)

        findings = await check_rabbitmq(amqp_url, partitions=2, management_url=amqp_management_url)

        assert about("notifier.events.0", findings) == [
            ("warning", "no router is consuming; events waiting: 0")
        ]
        assert about("notifier.events.1", findings) == [("warning", "the queue is not there yet")]

    async def test_a_queue_of_the_wrong_type_is_an_error(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with aiormq.connect(amqp_url) as connection:
            channel = await connection.channel()
            await channel.queue_declare("notifier.events.0", durable=True)

        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=amqp_management_url)

        assert ("error", "notifier.events.0: not of type quorum") in about(
            "rabbitmq queues", findings
        )

    @pytest.mark.parametrize(
        ("kind", "level"), [("topic", "warning"), ("fanout", "warning"), ("direct", "error")]
    )
    async def test_an_exchange_that_a_producer_declared_is_named_with_its_difference(
        self, amqp_url: str, amqp_management_url: str, kind: str, level: str
    ) -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange("notifier.events", kind, durable=True)
            with suppress(TopologyError):
                await declare(connection, 1)

        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=amqp_management_url)

        assert [
            each.level
            for each in findings
            if each.subject == "notifier.events"
            and "alternate-exchange is None, not notifier.unroutable" in each.text
        ] == [level]

    async def test_a_binding_that_is_missing_is_an_error(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            await declare(connection, 1)
            channel = await connection.channel()
            entries = await channel.get_exchange("notifier.entries")
            await entries.unbind("notifier.events", "#")

        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=amqp_management_url)

        assert (
            "error",
            "is not bound to notifier.entries: events that it should pass on get lost",
        ) in about("notifier.events", findings)

    async def test_dead_letters_are_counted(self, amqp_url: str, amqp_management_url: str) -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            await declare(connection, 1)
            channel = await connection.channel()
            await channel.default_exchange.publish(aio_pika.Message(b"x"), "notifier.dead")

        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=amqp_management_url)

        assert about("notifier.dead", findings) == [("warning", "dead letters waiting: 1")]

    async def test_events_that_were_handed_back_to_nobody_are_counted(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with await aio_pika.connect(amqp_url) as connection:
            await declare(connection, 1)
            await declare_returns(connection)
            channel = await connection.channel()
            exchange = await channel.get_exchange("notifier.undelivered")
            await exchange.publish(aio_pika.Message(b"x"), "user.42")
            reports = await channel.get_exchange("notifier.reports")
            await reports.publish(aio_pika.Message(b"x"), "read.user.42")
            waiting = await channel.get_exchange("notifier.waiting")
            await waiting.publish(aio_pika.Message(b"x"), "600.user.42")

        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=amqp_management_url)

        assert about("notifier.unclaimed", findings) == [
            ("warning", "events or reports were sent while no queue was bound: 2")
        ]
        for name in ("notifier.undelivered", "notifier.reports"):
            assert about(name, findings) == [("ok", "the exchange is there")]
        assert about("notifier.waiting.600", findings) == [
            ("ok", "events waiting to be received: 1")
        ]

    async def test_a_user_with_few_rights_learns_which_checks_were_left_out(
        self, limited_url: str, amqp_management_url: str
    ) -> None:
        management_url = f"http://{place(amqp_management_url)}"

        findings = await check_rabbitmq(limited_url, partitions=2, management_url=management_url)

        assert about("rabbitmq alarms", findings) == [("ok", "takes events")]
        assert about("rabbitmq plugins", findings) == [
            ("ok", "exchanges of type x-modulus-hash can be made")
        ]
        assert about("rabbitmq policies", findings) == [
            (
                "warning",
                f"{UNCHECKED}: {place(amqp_management_url)} refuses the user or the password",
            )
        ]
        assert PASSWORD not in str(findings)

    async def test_the_management_address_may_name_another_user_whose_password_is_not_logged(
        self, limited_url: str, amqp_management_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")

        findings = await check_rabbitmq(
            limited_url, partitions=1, management_url=amqp_management_url
        )

        assert about("rabbitmq policies", findings) == []
        assert f"http://{place(amqp_management_url)}/api/queues/" in caplog.text
        assert urlsplit(amqp_management_url).netloc not in caplog.text

    async def test_without_the_right_to_make_exchanges_the_plugin_is_not_checked(
        self, limited_url: str, amqp_management_url: str, vhost: str, management: httpx.Client
    ) -> None:
        await asyncio.to_thread(forbid, management, vhost, urlsplit(limited_url).username)

        findings = await check_rabbitmq(
            limited_url, partitions=2, management_url=amqp_management_url
        )

        assert about("rabbitmq plugins", findings) == [
            ("warning", "not checked: exchanges of type x-modulus-hash; this user may make none")
        ]

    async def test_a_management_api_that_is_not_there_is_a_warning(self, amqp_url: str) -> None:
        nowhere = f"127.0.0.1:{free_port()}"

        findings = await check_rabbitmq(
            amqp_url, partitions=1, management_url=f"http://guest:{PASSWORD}@{nowhere}/"
        )

        [finding] = [each for each in findings if each.subject == "rabbitmq policies"]
        assert finding.level == "warning"
        assert f"{nowhere} is out of reach" in finding.text
        assert PASSWORD not in str(finding)

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("/#/queues", "does not answer as RabbitMQ's management API does"),
            ("/prefix", "answers with status 404"),
        ],
    )
    async def test_a_management_address_that_leads_elsewhere_is_a_warning(
        self, amqp_url: str, amqp_management_url: str, path: str, why: str
    ) -> None:
        findings = await check_rabbitmq(
            amqp_url, partitions=1, management_url=amqp_management_url + path
        )

        assert about("rabbitmq policies", findings) == [
            ("warning", f"{UNCHECKED}: {place(amqp_management_url)} {why}")
        ]

    @pytest.mark.parametrize("address", [f"http://guest:{PASSWORD}/x@host", f"http://h:{PASSWORD}"])
    async def test_a_management_password_that_breaks_the_address_is_not_printed(
        self, amqp_url: str, address: str
    ) -> None:
        findings = await check_rabbitmq(amqp_url, partitions=1, management_url=address)

        assert about("rabbitmq policies", findings) == [("warning", "the address cannot be read")]

    async def test_under_an_alarm_rabbitmq_takes_nothing_after_the_first_publication(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with deaf_after(PUBLISH, amqp_url) as url:
            findings = await check_rabbitmq(url, partitions=1, management_url=amqp_management_url)

        assert about("rabbitmq alarms", findings) == [
            ("error", "takes no events: it has an alarm of memory or disk, or hangs")
        ]

    async def test_a_rabbitmq_that_hangs_halfway_is_given_up(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        async with deaf_after(OPEN_CHANNEL, amqp_url) as url:
            findings = await check_rabbitmq(url, partitions=1, management_url=amqp_management_url)

        assert about("rabbitmq", findings) == [
            ("ok", f"{place(url)} answers"),
            ("error", f"{place(url)} gave no answer within 3 s"),
        ]

    async def test_a_password_that_crosses_the_network_in_clear_is_a_warning(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        url = amqp_url.replace("127.0.0.1", "0.0.0.0")  # noqa: S104  # leads here, but is no loopback

        findings = await check_rabbitmq(url, partitions=1, management_url=amqp_management_url)

        assert ("warning", "the password for 0.0.0.0 crosses the network in clear") in about(
            "rabbitmq", findings
        )

    async def test_a_refused_password_is_not_printed(self, amqp_url: str) -> None:
        [finding] = await check_rabbitmq(
            with_user(amqp_url, "guest"), partitions=1, management_url=None
        )

        assert finding.level == "error"
        assert finding.text.startswith(f"{place(amqp_url)} refuses the user or the password")
        assert PASSWORD not in str(finding)

    async def test_a_virtual_host_that_is_missing_is_named(self, amqp_url: str) -> None:
        url = urlsplit(amqp_url)._replace(path="/no%2Fsuch").geturl()

        findings = await check_rabbitmq(url, partitions=1, management_url=None)

        assert about("rabbitmq", findings) == [
            (
                "error",
                f"{place(amqp_url)} has no virtual host no/such, or this user may not use it",
            )
        ]

    @pytest.mark.services
    async def test_a_rabbitmq_that_is_not_there_is_named_by_host_and_port(self) -> None:
        nowhere = f"127.0.0.1:{free_port()}"

        [finding] = await check_rabbitmq(
            f"amqp://guest:{PASSWORD}@{nowhere}/", partitions=1, management_url=None
        )

        assert finding.text.startswith(f"{nowhere} is out of reach")
        assert PASSWORD not in str(finding)

    @pytest.mark.services
    async def test_a_rabbitmq_that_hangs_is_given_up(self) -> None:
        async with silent_server() as somewhere:
            findings = await check_rabbitmq(
                f"amqp://{somewhere}/", partitions=1, management_url=None
            )

        assert about("rabbitmq", findings) == [("error", f"{somewhere} gave no answer within 3 s")]

    async def test_one_node_of_several_that_is_down_is_a_warning(
        self, amqp_url: str, amqp_management_url: str
    ) -> None:
        down = at(amqp_url, f"127.0.0.1:{free_port()}")

        findings = await check_rabbitmq(
            f"{down}, {amqp_url}", partitions=1, management_url=amqp_management_url
        )

        levels = [finding.level for finding in findings if finding.subject == "rabbitmq"]
        assert levels == ["warning", "ok"]
        assert about("rabbitmq alarms", findings) == [("ok", "takes events")]

    @pytest.mark.services
    async def test_several_partitions_need_the_plugin_before_rabbitmq_4_3(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(services, "RABBITMQ_PLUGINS", ("rabbitmq_management",))
        with RabbitServer() as server:
            findings = await check_rabbitmq(
                server.url, partitions=2, management_url=server.management_url
            )
            is_built_in = version_of(server.management_url) >= (4, 3)

        [finding] = [each for each in findings if each.subject == "rabbitmq plugins"]
        assert finding.level == ("ok" if is_built_in else "error")
        assert is_built_in or "rabbitmq-plugins enable rabbitmq_sharding" in finding.mend


@asynccontextmanager
async def consumers(url: str, *queues: str) -> AsyncIterator[None]:
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        for queue in queues:
            await channel.basic_consume(queue, ignore)
        yield


async def ignore(_: DeliveredMessage) -> None:
    pass


def import_definitions(management: httpx.Client, vhost: str) -> None:
    """Import what `notifier topology` prints; return when RabbitMQ shows the policies too."""
    name = quote(vhost, "")
    management.post(f"/api/definitions/{name}", json=definitions(2, vhost)).raise_for_status()
    shown = functools.partial(management.get, f"/api/queues/{name}")
    wait_until(  # measured every 5 seconds
        lambda: all("effective_policy_definition" in queue for queue in shown().json()),
        seconds=30,
        otherwise=lambda: f"no policy in {shown().text}",
    )


def forbid(management: httpx.Client, vhost: str, user: str | None) -> None:
    """Leave the user no rights but to enter the virtual host."""
    rights = dict.fromkeys(("configure", "write", "read"), "^$")
    address = f"/api/permissions/{quote(vhost, '')}/{user}"
    management.put(address, json=rights).raise_for_status()


def exchanges(management: httpx.Client, vhost: str) -> list[str]:
    return [exchange["name"] for exchange in management.get(f"/api/exchanges/{vhost}").json()]

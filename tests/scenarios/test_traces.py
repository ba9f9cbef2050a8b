"""Traces: one event's way through all processes, as a collector of OpenTelemetry sees it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from secrets import token_hex

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.clients import connected
from tests.support.collector import Collector, collector
from tests.support.process import free_port, wait_until
from tests.support.producers import amqp_producer, http_producer
from tests.support.roles import Role, Service, running, service_of, token
from tests.support.services import RabbitAddress, emptied, fresh_vhost

SPANS = {
    "accept": "notifier-api",
    "route": "notifier-router",
    "publish": "notifier-router",
    "deliver": "notifier-gateway",
}
EVENT = {"users": ["anna"], "type": "order.paid", "id": "order-7", "source": "shop"}


@pytest.fixture(scope="module")
def collecting() -> Iterator[Collector]:
    with collector() as running_collector:
        yield running_collector


@pytest.fixture(scope="module")
def traced(
    _rabbitmq: RabbitAddress, _redis_address: str, logs: Path, collecting: Collector
) -> Iterator[Service]:
    """One process of each role, all of which send traces."""
    with fresh_vhost(_rabbitmq) as amqp_url, emptied(_redis_address) as redis_url:
        service = service_of(logs, amqp_url, redis_url, **collecting.settings)
        with running(service.api, service.router, service.gateway):
            yield service


def wait_for(collecting: Collector, trace: str, names: set[str]) -> None:
    wait_until(
        lambda: collecting.trace(trace).keys() >= names,
        seconds=30,
        otherwise=lambda: f"only {[*collecting.trace(trace)]} of trace {trace}",
    )


def services_of(collecting: Collector, trace: str) -> dict[str, str]:
    return {name: service for name, (service, _) in collecting.trace(trace).items()}


async def test_one_event_is_one_trace_of_four_spans(traced: Service, collecting: Collector) -> None:
    trace, producers_span = token_hex(16), token_hex(8)
    traceparent = f"00-{trace}-{producers_span}-01"
    async with (
        connected(traced.gateway.gateway_url, token("anna")) as client,
        http_producer(traced.api.api_url) as producer,
    ):
        await producer.post(EVENT | {"id": trace}, traceparent=traceparent)
        event = await client.next_event()
    wait_for(collecting, trace, {*SPANS})

    assert event["traceparent"] == traceparent
    assert services_of(collecting, trace) == SPANS
    for _, span in collecting.trace(trace).values():
        named = {each.key: each.value.string_value for each in span.attributes}
        assert span.parent_span_id.hex() == producers_span
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
        assert named == {
            "cloudevents.event_id": trace,
            "cloudevents.event_source": "shop",
            "cloudevents.event_type": "order.paid",
        }


async def test_a_trace_of_an_event_over_amqp_begins_with_its_header(
    traced: Service, collecting: Collector
) -> None:
    trace = token_hex(16)
    traceparent = f"00-{trace}-{token_hex(8)}-01"
    async with (
        connected(traced.gateway.gateway_url, token("bert")) as client,
        amqp_producer(traced.amqp_url) as producer,
    ):
        await producer.send({"type": "t"}, "user.bert", headers={"traceparent": traceparent})
        event = await client.next_event()
    wait_for(collecting, trace, {*SPANS} - {"accept"})

    assert event["traceparent"] == traceparent
    assert "accept" not in services_of(collecting, trace)


async def test_an_event_without_a_trace_begins_one_in_the_api(
    traced: Service, collecting: Collector
) -> None:
    async with (
        connected(traced.gateway.gateway_url, token("carl")) as client,
        http_producer(traced.api.api_url) as producer,
    ):
        await producer.send({"users": ["carl"], "type": "t"})
        _, trace, span, _ = (await client.next_event())["traceparent"].split("-")
    wait_for(collecting, trace, {*SPANS})

    spans = {name: span for name, (_, span) in collecting.trace(trace).items()}
    assert spans["accept"].span_id.hex() == span
    assert spans["accept"].parent_span_id == b""
    assert {spans[name].parent_span_id.hex() for name in ("route", "publish", "deliver")} == {span}


async def test_an_event_that_its_producer_has_not_sampled_is_not_traced(
    traced: Service, collecting: Collector
) -> None:
    left_out, taken = token_hex(16), token_hex(16)
    async with (
        connected(traced.gateway.gateway_url, token("dora")) as client,
        http_producer(traced.api.api_url) as producer,
    ):
        for trace, flags in ((left_out, "00"), (taken, "01")):
            event = {"users": ["dora"], "type": "t"}
            await producer.post(event, traceparent=f"00-{trace}-{token_hex(8)}-{flags}")
        await client.next_events(2)
    wait_for(collecting, taken, {*SPANS})

    assert collecting.trace(left_out) == {}


async def test_the_span_of_a_dead_letter_says_why(traced: Service, collecting: Collector) -> None:
    trace = token_hex(16)
    headers = {"traceparent": f"00-{trace}-{token_hex(8)}-01"}
    async with amqp_producer(traced.amqp_url) as producer:
        await producer.send({"type": "t", "users": []}, "", headers=headers)
    wait_for(collecting, trace, {"route"})

    ((_, span),) = collecting.trace(trace).values()
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert span.status.message == "users: must name at least one user"


async def test_a_collector_that_is_away_harms_nobody(
    tmp_path: Path, amqp_url: str, redis_url: str
) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    settings = {"NOTIFIER_TRACES": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": nowhere}
    service = service_of(tmp_path, amqp_url, redis_url, **settings)
    with running(service.api, service.router, service.gateway):
        async with (
            connected(service.gateway.gateway_url, token("anna")) as client,
            http_producer(service.api.api_url) as producer,
        ):
            await producer.send(EVENT)

            assert (await client.next_event())["id"] == "order-7"


async def test_without_traces_a_traceparent_is_handed_on_all_the_same(
    service: Service, collecting: Collector
) -> None:
    before = collecting.requests
    traceparent = f"00-{token_hex(16)}-{token_hex(8)}-01"
    async with (
        connected(service.gateway.gateway_url, token("anna")) as client,
        http_producer(service.api.api_url) as producer,
    ):
        await producer.post(EVENT, traceparent=traceparent)

        assert (await client.next_event())["traceparent"] == traceparent
    assert collecting.requests == before


def test_without_traces_the_library_of_spans_is_not_even_loaded() -> None:
    script = "import sys, notifier.wiring; print(*sys.modules)"

    loaded = subprocess.check_output([sys.executable, "-c", script], text=True).split()

    assert "notifier.telemetry.traces" in loaded
    assert "notifier.telemetry.opentelemetry" not in loaded


def test_without_the_extra_the_setting_names_it(tmp_path: Path) -> None:
    without = tmp_path / "opentelemetry/sdk"
    without.mkdir(parents=True)
    (without / "__init__.py").write_text("raise ImportError('as if it were not installed')")
    role = Role("dev", tmp_path / "dev.log", NOTIFIER_TRACES="true", PYTHONPATH=str(tmp_path))

    role.start()

    assert role.wait() == 2
    assert "NOTIFIER_TRACES: needs OpenTelemetry" in role.output()
    assert "pip install 'notifier-push[otel]'" in role.output()

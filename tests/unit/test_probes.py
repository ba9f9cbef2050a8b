from collections.abc import Mapping

import httpx
from prometheus_client import generate_latest

from notifier.probes import create_app
from notifier.telemetry.metrics import Metrics


async def get(path: str, trouble: Mapping[str, str | None], metrics: Metrics) -> httpx.Response:
    app = create_app(metrics, lambda: trouble)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://private"
    ) as http:
        return await http.get(path)


async def test_a_process_is_alive_without_its_dependencies() -> None:
    answer = await get("/livez", {"broker": "away"}, Metrics())

    assert answer.status_code == 200


async def test_the_private_port_describes_itself() -> None:
    answer = await get("/openapi.json", {}, Metrics())

    assert sorted(answer.json()["paths"]) == ["/livez", "/metrics", "/readyz"]


async def test_a_role_without_trouble_is_ready() -> None:
    answer = await get("/readyz", {"broker": None, "queue": None}, Metrics())

    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "parts": {"broker": "ok", "queue": "ok"}}


async def test_a_role_in_trouble_says_which_part_and_why() -> None:
    answer = await get("/readyz", {"broker": "no answer for 5 s", "queue": None}, Metrics())

    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "parts": {"broker": "no answer for 5 s", "queue": "ok"},
    }


async def test_metrics_are_told_in_the_format_of_prometheus() -> None:
    metrics = Metrics()
    metrics.fanned_out(3, 0.2)
    metrics.gap("expired", 2)

    answer = await get("/metrics", {}, metrics)

    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert "notifier_deliveries_total 3.0" in lines
    assert 'notifier_publications_total{outcome="fanned_out"} 1.0' in lines
    assert 'notifier_gaps_total{reason="expired"} 2.0' in lines
    assert 'notifier_event_age_seconds_count{stage="written"} 1.0' in lines


async def test_trouble_is_asked_whenever_metrics_are_read() -> None:
    metrics, trouble = Metrics(), dict[str, str | None](broker=None, queue="away")
    app = create_app(metrics, lambda: trouble)

    before = generate_latest(metrics.registry).decode().splitlines()
    trouble.update(broker="no answer for 5 s", queue=None)
    after = generate_latest(metrics.registry).decode().splitlines()

    assert app.routes
    assert {'notifier_trouble{part="broker"} 0.0', 'notifier_trouble{part="queue"} 1.0'} <= {
        *before
    }
    assert {'notifier_trouble{part="broker"} 1.0', 'notifier_trouble{part="queue"} 0.0'} <= {*after}


async def test_two_processes_worth_of_metrics_do_not_mix() -> None:
    first, second = Metrics(), Metrics()
    first.hole()

    answer = await get("/metrics", {}, second)

    assert "notifier_holes_total 0.0" in answer.text.splitlines()

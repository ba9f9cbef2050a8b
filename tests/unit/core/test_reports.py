import json

from notifier.core import events
from notifier.core.events import Event
from notifier.core.reports import Report, report_of

NOW = 1_769_851_800.0
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def event(name: str = "e") -> Event:
    of = Event(type="t", users=["1", "2"], id=name, report=True, traceparent=TRACE)
    return events.completed(of, source="shop", now=NOW)


def test_a_report_is_a_cloudevent_about_the_event_and_the_user() -> None:
    report = report_of(event(), "1", Report.READ, NOW)

    assert json.loads(report.body) == {
        "specversion": "1.0",
        "id": report.id,
        "source": "notifier",
        "type": "notifier.read",
        "time": "2026-01-31T09:30:00Z",
        "subject": "1",
        "datacontenttype": "application/json",
        "traceparent": TRACE,
        "data": {"user": "1", "source": "shop", "id": "e"},
    }


def test_its_id_is_the_same_at_any_moment_and_no_other_reports() -> None:
    ids = {
        report_of(event(name), user, kind, NOW + late).id
        for late in (0, 1)
        for name in ("e", "f")
        for user in ("1", "2")
        for kind in Report
    }

    assert len(ids) == 2 * 2 * len(Report)
    assert {len(each) for each in ids} == {32}

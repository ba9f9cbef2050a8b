from notifier.client.events import Members
from notifier.core import events


def test_producers_may_give_each_member_that_an_event_has() -> None:
    assert Members.__annotations__.keys() | {"type"} == set(events.Event.__struct_fields__)

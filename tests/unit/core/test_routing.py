import pytest

from notifier.core.events import Event
from notifier.core.routing import topics_of


def test_a_user_is_reached_by_the_personal_topic() -> None:
    assert topics_of(Event(type="t", users=["42"])) == ["user:42"]


def test_a_user_named_twice_is_reached_once() -> None:
    assert topics_of(Event(type="t", users=["2", "1", "2"])) == ["user:2", "user:1"]


def test_a_topic_is_itself() -> None:
    assert topics_of(Event(type="t", topic="news")) == ["news"]


def test_everyone_is_one_topic() -> None:
    assert topics_of(Event(type="t", everyone=True)) == ["everyone"]


def test_an_event_without_an_audience_is_for_nobody() -> None:
    with pytest.raises(ValueError, match="nobody"):
        topics_of(Event(type="t"))

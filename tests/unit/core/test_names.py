import pytest
from hypothesis import given

from notifier.core.errors import Invalid
from notifier.core.names import (
    LONGEST_NAME,
    checked_name,
    checked_topic,
    is_name,
    is_personal,
    personal_topic,
)
from tests.support.events import NAMES


@pytest.mark.parametrize("name", ["42", "ann@example.org", "team:7:chat", "a" * LONGEST_NAME])
def test_ids_of_other_systems_are_names(name: str) -> None:
    assert is_name(name)


@pytest.mark.parametrize(
    "text", ["", "a b", "a,b", "{a}", "a*", '"', "a\\", "é", "a\n", "\x00", "a" * 129]
)
def test_characters_of_notations_and_logs_are_not_allowed_in_names(text: str) -> None:
    assert not is_name(text)


@pytest.mark.parametrize("text", [".", ".."])
def test_a_name_that_a_path_cannot_have_is_none(text: str) -> None:
    assert not is_name(text)
    with pytest.raises(Invalid):
        checked_topic(personal_topic(text), "topic")
    assert is_name(f"{text}a")
    assert is_name(f"a{text}")
    assert is_name("...")


def test_an_error_names_the_field_and_the_rule() -> None:
    with pytest.raises(Invalid) as error:
        checked_name("a b", "users[3]")

    assert error.value.field == "users[3]"
    assert "1 to 128" in error.value.reason


@given(NAMES)
def test_every_user_has_a_personal_topic(user: str) -> None:
    topic = personal_topic(user)

    assert is_personal(topic)
    assert checked_topic(topic, "topic") == topic


@pytest.mark.parametrize("topic", ["", "user:", "user:a b", "user:" + "a" * 129])
def test_a_personal_topic_needs_a_user(topic: str) -> None:
    with pytest.raises(Invalid, match="topic: must be"):
        checked_topic(topic, "topic")


def test_a_topic_that_only_begins_alike_is_not_personal() -> None:
    assert not is_personal("users")

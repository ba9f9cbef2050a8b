import pytest

from notifier.core.addresses import Address


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("redis://ann:old@redis:6379/0", "redis://ann:new@redis:6379/0"),
        ("redis://redis:6379/0", "redis://:new@redis:6379/0"),
        ("redis://ann:old@redis/0", "redis://bob:n%40w%2F@redis/0"),
        ("amqp://a:old@one/,amqp://a:old@two/", "amqp://b:new@one/,amqp://c:new@two/"),
        (
            "redis+sentinel://u:old@s0:26379,s1:26379/main?sentinel_password=old",
            "redis+sentinel://u:new@s0:26379,s1:26379/main?sentinel_username=s&sentinel_password=n",
        ),
        ("rediss://redis?ssl_ca_certs=a&ssl_password=x", "rediss://redis?ssl_ca_certs=a"),
    ],
)
def test_users_and_passwords_are_replaced(before: str, after: str) -> None:
    address = Address(before)

    assert address.replace(after)
    assert address.url == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("redis://ann:old@redis:6379/0", "redis://ann:new@other:6379/0"),
        ("redis://:old@redis:6379/0", "redis://:new@redis:6379/1"),
        ("redis://:old@redis", "redis://:new@redis?db=1"),
        ("redis://:old@redis", "rediss://:new@redis"),
        ("amqp://a:old@one/,amqp://a:old@two/", "amqp://a:new@one/"),
        ("amqp://a:old@one/here", "amqp://a:new@one/there"),
    ],
)
def test_another_place_is_not_taken_and_so_is_no_password_of_it(before: str, after: str) -> None:
    address = Address(before)

    assert not address.replace(after)
    assert address.url == before

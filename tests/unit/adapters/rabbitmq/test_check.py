import pytest

from notifier.adapters.rabbitmq.check import check_rabbitmq


@pytest.mark.parametrize(
    "address", ["amqp://user:pa/ss@host/", "amqp://user:12/ss@host/", "amqp://user:pa#ss@host/"]
)
async def test_a_password_that_breaks_the_address_is_not_printed(address: str) -> None:
    [finding] = await check_rabbitmq(address, partitions=1, management_url=None)

    assert (finding.level, finding.text) == ("error", "the address cannot be read")

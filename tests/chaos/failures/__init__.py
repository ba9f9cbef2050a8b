"""Every failure, how it is provoked, and what it must look like."""

# Importing a module registers its failures, in the order of the table.
from tests.chaos.failures import rabbitmq, redis, service  # isort: skip
from tests.chaos.failures import clients  # isort: skip
from tests.chaos.failures.registry import FAILURES, Failure

__all__ = ["FAILURES", "Failure", "clients", "rabbitmq", "redis", "service"]

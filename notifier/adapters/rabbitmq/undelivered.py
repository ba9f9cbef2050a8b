"""Letters of events that wait, of those on their way back, and of delivery reports.

A letter that waits has its delay before its routing key. The exchange `notifier.waiting` finds the
queue by it, and the hash of `notifier.partitions` spreads the letters afterwards.
"""

from aiormq.abc import FieldTable

from notifier.adapters.rabbitmq import frames, properties
from notifier.adapters.rabbitmq.confirms import Letter, letter_of
from notifier.adapters.rabbitmq.topology import REPORTS, UNDELIVERED, WAITING
from notifier.core.entries import Entry
from notifier.core.reports import DeliveryReport
from notifier.core.undelivered import HandedBack


def waiting_letter(entry: Entry, delay: int) -> Letter:
    """Return the letter that has an entry wait for so many seconds."""
    return letter_of(entry, WAITING, f"{delay}.{entry.routing_key}")


def letter_back(back: HandedBack) -> Letter:
    """Return the letter that hands an event back."""
    headers: FieldTable = {"notifier-reason": str(back.reason), "notifier-user": back.user}
    address = frames.address(UNDELIVERED, f"user.{back.user}")
    return Letter(address, properties.with_id(headers, back.id), back.event, is_numbered=False)


def report_letter(report: DeliveryReport) -> Letter:
    """Return the letter of a delivery report."""
    headers: FieldTable = {"notifier-report": str(report.kind), "notifier-user": report.user}
    address = frames.address(REPORTS, f"{report.kind}.user.{report.user}")
    return Letter(address, properties.with_id(headers, report.id), report.body, is_numbered=False)

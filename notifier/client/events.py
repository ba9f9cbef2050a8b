"""Events as a producer gives them, and as a follower gets them."""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypedDict


class Members(TypedDict, total=False):
    """The members of an event beside its type; exactly one of the first three is its audience.

    `data` is anything that becomes JSON: also dates, UUIDs and data classes. `ttl` and
    `undelivered_after` are in seconds, `time` and `expires` are texts of RFC 3339. An event with
    the same `source` and `id` is delivered once.
    """

    users: Sequence[str]
    topic: str
    everyone: bool
    data: object
    data_base64: str
    id: str
    source: str
    time: str
    ttl: float
    expires: str
    collapse_key: str
    silent: bool
    undelivered_after: float
    report: bool
    subject: str
    datacontenttype: str
    dataschema: str
    traceparent: str
    extensions: Mapping[str, str | int | bool]


@dataclass(frozen=True)
class Event:
    """One event of a stream; `attributes` is the whole CloudEvent as it came.

    `position` is the place behind it in the stream of `topic`.
    """

    topic: str
    position: str
    attributes: Mapping[str, Any]

    @classmethod
    def of_frame(cls, frame: Mapping[str, Any]) -> Self:
        """Read a frame `event`."""
        return cls(frame["topic"], frame["position"], frame["event"])

    @property
    def id(self) -> str:
        """Unique together with `source`."""
        return str(self.attributes["id"])

    @property
    def source(self) -> str:
        """The service that posted it, or `user:ID` of a client."""
        return str(self.attributes["source"])

    @property
    def type(self) -> str:
        """The kind of event, such as order.paid."""
        return str(self.attributes["type"])

    @cached_property
    def data(self) -> Any:  # noqa: ANN401 - any JSON
        """The data: JSON, or bytes where it came as `data_base64`; None without any."""
        if "data_base64" in self.attributes:
            return b64decode(self.attributes["data_base64"])
        return self.attributes.get("data")


@dataclass(frozen=True)
class Gap:
    """Events of `topic` were missed: fetch your state anew.

    `reason` is expired, restarted or lost.
    """

    topic: str
    position: str
    reason: str

    @classmethod
    def of_frame(cls, frame: Mapping[str, Any]) -> Self:
        """Read a frame `gap`."""
        return cls(frame["topic"], frame["position"], frame["reason"])

"""A connection that remembers what it was sent."""

import json
from collections.abc import Sequence
from typing import Any

from notifier.core import frames
from notifier.core.errors import CloseCode
from notifier.core.ports import Listener
from notifier.core.publications import Publication

Sent = dict[str, Any]


def line(publication: Publication) -> bytes:
    """Encode a publication as one line, so that joined ones can be told apart."""
    return frames.event_frame(publication) + b"\n"


class RecordingConnection:
    """Fulfils Connection. As on a wire, nothing is sent any more once it is closed."""

    transport = "recording"

    def __init__(self) -> None:
        self.encode = line
        self.has_room = True
        self.answers_pings = True
        self.sent: list[Sent] = []
        self.pings = 0
        self.closed_with: CloseCode | None = None
        self.listener: Listener | None = None

    def write(self, data: bytes, publication: Publication | None = None) -> None:  # noqa: ARG002  # the data tells
        """See Connection."""
        if self.closed_with is None:
            self.sent.extend(map(json.loads, data.splitlines()))

    def write_all(self, publications: Sequence[Publication]) -> None:
        """See Connection."""
        for publication in publications:
            self.write(self.encode(publication), publication)

    def send(self, frame: frames.ServerFrame) -> None:
        """See Connection."""
        self.write(frames.encode(frame))

    def ping(self) -> bool:
        """See Connection."""
        self.pings += 1
        return self.answers_pings

    def hand_over(self, listener: Listener) -> None:
        """See Connection."""
        self.listener = listener

    def close(self, code: CloseCode) -> None:
        """See Connection."""
        self.closed_with = self.closed_with or code

    # The tests' verbs.

    @property
    def types(self) -> list[str]:
        """The types of the frames sent, in order."""
        return [frame["type"] for frame in self.sent]

    def of_type(self, kind: str) -> list[Sent]:
        """The frames of one type, in order."""
        return [frame for frame in self.sent if frame["type"] == kind]

    def only(self, kind: str) -> Sent:
        """The one frame of a type."""
        [frame] = self.of_type(kind)
        return frame

    def positions(self, topic: str) -> list[str]:
        """The positions of a topic's events, in order."""
        return [frame["position"] for frame in self.of_type("event") if frame["topic"] == topic]

    def forget(self) -> None:
        """Forget what was sent so far."""
        self.sent.clear()

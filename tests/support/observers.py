"""An observer that remembers what it was told."""


class RecordingObserver:
    """Fulfils Observer; `told` has one tuple a call."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def fanned_out(self, followers: int, delay: float) -> None:
        """See Observer."""
        del delay
        self.told.append(("fanned_out", followers))

    def recovered(self, publications: int) -> None:
        """See Observer."""
        self.told.append(("recovered", publications))

    def expired(self, publications: int) -> None:
        """See Observer."""
        self.told.append(("expired", publications))

    def gap(self, reason: str, sessions: int) -> None:
        """See Observer."""
        self.told.append(("gap", reason, sessions))

    def client_published(self, outcome: str) -> None:
        """See PublishingObserver."""

    def exchanged(self, outcome: str) -> None:
        """See AttendanceObserver."""
        self.told.append(("exchanged", outcome))

    def presence_told(self, clients: int) -> None:
        """See AttendanceObserver."""
        if clients:
            self.told.append(("presence_told", clients))

    def marked(self, outcome: str, moves: int) -> None:
        """See BadgesObserver."""
        self.told.append(("marked", outcome, moves))

    def recounted(self, users: int) -> None:
        """See BadgesObserver."""
        self.told.append(("recounted", users))

    def hole(self) -> None:
        """See Observer."""
        self.told.append(("hole",))

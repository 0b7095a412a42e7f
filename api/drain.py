"""Whether this process is on its way out: set once, read by everyone who takes new work."""


class Drain:
    """The order of a drain is written down where it is done, in `api.server`."""

    __slots__ = ("draining", "failed")

    def __init__(self) -> None:
        self.draining = False
        self.failed = False
        """A loop the process cannot do without has died: leave, with a status that says so."""

    def begin(self) -> None:
        self.draining = True

    def fail(self) -> None:
        self.failed = True
        self.draining = True

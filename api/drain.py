"""Whether this process is on its way out: set once, read by everyone who takes new work."""


class Drain:
    """The order of a drain is written down where it is done, in `api.server`."""

    __slots__ = ("draining", "failed", "refusing")

    def __init__(self) -> None:
        self.draining = False
        """Not ready any more: answers close their connections, probes say so."""
        self.refusing = False
        """Nothing new is taken. Later than `draining`: what clients had sent, or were sending on a
        connection that this process had accepted, must not fail because it ends."""
        self.failed = False
        """A loop the process cannot do without has died: leave, with a status that says so."""

    def begin(self) -> None:
        self.draining = True

    def refuse(self) -> None:
        self.draining = self.refusing = True

    def fail(self) -> None:
        self.failed = True
        self.refuse()

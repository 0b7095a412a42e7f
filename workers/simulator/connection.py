"""uvicorn's HTTP connection, made reachable for the application so that it can hang up."""

from typing import cast

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

EXTENSION = "simulator"


class Connection(HttpToolsProtocol):
    """ASGI cannot say "close this socket without ending the answer", and that is what several
    faults are; so the connection travels in the scope's extensions."""

    lost = False

    @property
    def closing(self) -> bool:
        """Closed by either side, though perhaps still flushing."""
        return self.transport.is_closing()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        super().connection_lost(exc)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        scope = cast("dict[str, object]", self.scope)
        scope["extensions"] = {EXTENSION: {"connection": self}}

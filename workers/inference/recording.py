"""What a provider sends, kept as it comes for the cache, up to what an entry may hold."""

from collections.abc import Sequence


class Recording:
    """Of one attempt: a whole body as one piece, or the data of a stream's events, `[DONE]` left out."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._size = 0
        self.pieces: list[bytes] = []
        self.is_too_large = False

    def add(self, pieces: Sequence[bytes]) -> None:
        self._size += sum(map(len, pieces))
        if self._size > self._at_most:
            self.is_too_large = True
            self.pieces = []
        else:
            self.pieces += pieces

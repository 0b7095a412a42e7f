"""What a provider sends, kept as it comes for the cache, up to what an entry may hold."""

from collections.abc import Sequence

import msgspec

FINISHED = frozenset({"stop", "length", "tool_calls", "function_call"})
"""How an answer ends by itself. Who broke off, or was filtered, may do better the next time."""


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Piece(msgspec.Struct):
    choices: list[_Choice] = []


_decode = msgspec.json.Decoder(_Piece).decode


def is_finished(pieces: Sequence[bytes]) -> bool:
    """Whether they are a chat completion of one choice that came to its end."""
    try:
        read = [_decode(piece).choices for piece in pieces]
    except msgspec.DecodeError:
        return False
    choices = [choice for some in read for choice in some]
    reasons = {choice.finish_reason for choice in choices if choice.finish_reason}
    is_one = all(choice.index == 0 for choice in choices) and max(map(len, read), default=0) <= 1
    return is_one and bool(reasons) and reasons <= FINISHED


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

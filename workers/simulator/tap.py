"""Sees every body byte that leaves in an answer, and keeps a digest of them."""

import hashlib


class Tap:
    __slots__ = ("_digest", "_pieces", "last")

    def __init__(self, *, keeps: bool = False) -> None:
        """`keeps`: the bytes themselves too."""
        self._digest = hashlib.sha256()
        self._pieces: list[bytes] | None = [] if keeps else None
        self.last = b""
        """The newest piece."""

    def update(self, data: bytes) -> None:
        self._digest.update(data)
        self.last = data
        if self._pieces is not None:
            self._pieces.append(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @property
    def kept(self) -> bytes | None:
        return None if self._pieces is None else b"".join(self._pieces)

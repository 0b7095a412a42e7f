"""An API key: its grammar, how one is made, and what may be kept of it.

`sk-ollm-<public id: 12 alphanumerics>-<secret: 48 alphanumerics>`. The public id is a name and may
be shown and logged; of the secret only its SHA-256 is kept. The secret has 285 bits, so a plain
hash is enough: there is nothing to guess, and a slow one would be paid on every request.
"""

import hashlib
import hmac
import re
import secrets
import string

import msgspec
from typing_extensions import override

PREFIX = "sk-ollm-"
PUBLIC_ID_LENGTH = 12
SECRET_LENGTH = 48
ALPHABET = string.ascii_letters + string.digits

_GRAMMAR = re.compile(
    rb"%b([A-Za-z0-9]{%d})-([A-Za-z0-9]{%d})" % (PREFIX.encode(), PUBLIC_ID_LENGTH, SECRET_LENGTH)
)


class ApiKey(msgspec.Struct, frozen=True):
    """A key in the clear: shown once, when it is made, and carried by each request."""

    public_id: str
    secret: str

    @classmethod
    def mint(cls) -> "ApiKey":
        """A new key from the system's CSPRNG."""
        return cls(public_id=_draw(PUBLIC_ID_LENGTH), secret=_draw(SECRET_LENGTH))

    @classmethod
    def parse(cls, text: str) -> "ApiKey | None":
        """None where the text is not a key by its grammar."""
        parts = split(text.encode())
        return None if parts is None else cls(parts[0].decode(), parts[1].decode())

    @property
    def text(self) -> str:
        return f"{PREFIX}{self.public_id}-{self.secret}"

    @property
    def secret_sha256(self) -> bytes:
        return hashlib.sha256(self.secret.encode()).digest()

    @override
    def __repr__(self) -> str:
        return f"ApiKey({self.public_id})"


def split(token: bytes) -> tuple[bytes, bytes] | None:
    """(public id, secret), or None where the token is not a key by its grammar."""
    match = _GRAMMAR.fullmatch(token)
    return None if match is None else (match[1], match[2])


def is_secret(secret: bytes, sha256: bytes) -> bool:
    """Whether a secret is the one behind a hash, in constant time."""
    return hmac.compare_digest(hashlib.sha256(secret).digest(), sha256)


def _draw(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))

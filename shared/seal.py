"""Seals what must not be readable at rest: AES-256-GCM, bound to what it belongs to.

A sealed value is `version (1) · key id (4) · salt (16) · counter (12) · ciphertext and tag`.
Each process derives its own subkey from the deployment's key and a random salt (HKDF-SHA256), and
counts its nonces, so no nonce repeats however many messages there are: random 96-bit nonces under
one key would be good for only 2^32 of them. The associated data names the purpose and the owner
(say, `reply:<request id>:<number>`), so a value moved elsewhere does not open.
"""

import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = 1
KEY_BYTES = 32
SALT_BYTES = 16
PREFIX = struct.Struct(">B4s16s")
NONCE_BYTES = 12
SUBKEYS_KEPT = 1024
"""One per live peer process and key; far above any deployment's count of processes."""


class SealBroken(Exception):
    """The value was not sealed under a key we have, for this purpose, or was altered."""


class Seal:
    """Seals under the first key, opens under any (so keys can be rotated)."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"seal keys must be {KEY_BYTES} bytes each, and at least one")
        self._first = keys[0]
        self._keys = {_key_id(key): key for key in keys}
        self._subkeys: OrderedDict[bytes, AESGCM] = OrderedDict()
        self._prefix = PREFIX.pack(VERSION, _key_id(keys[0]), os.urandom(SALT_BYTES))
        self._encrypt = self._subkey(self._prefix).encrypt
        self._counter = 0

    def seal(self, plain: bytes, bound_to: bytes) -> bytes:
        self._counter += 1
        nonce = self._counter.to_bytes(NONCE_BYTES, "big")
        return self._prefix + nonce + self._encrypt(nonce, plain, bound_to)

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """The plain bytes. Raises SealBroken."""
        prefix = sealed[: PREFIX.size]
        nonce = sealed[PREFIX.size : PREFIX.size + NONCE_BYTES]
        try:
            cipher = self._subkeys.get(prefix) or self._subkey(prefix)
            return cipher.decrypt(nonce, sealed[PREFIX.size + NONCE_BYTES :], bound_to)
        except (InvalidTag, struct.error, ValueError, KeyError) as error:
            raise SealBroken("a sealed value did not open") from error

    def key_for(self, purpose: bytes) -> bytes:
        """A key for another purpose than sealing, of the first key: in every process the same."""
        info = b"ollm-gateway key for " + purpose
        return HKDF(SHA256(), length=KEY_BYTES, salt=None, info=info).derive(self._first)

    def _subkey(self, prefix: bytes) -> AESGCM:
        version, key_id, salt = PREFIX.unpack(prefix)
        if version != VERSION:
            raise KeyError(version)
        derive = HKDF(SHA256(), length=KEY_BYTES, salt=salt, info=b"ollm-gateway seal v1")
        cipher = AESGCM(derive.derive(self._keys[key_id]))
        self._subkeys[prefix] = cipher
        if len(self._subkeys) > SUBKEYS_KEPT:
            self._subkeys.popitem(last=False)
        return cipher


def _key_id(key: bytes) -> bytes:
    return hashlib.sha256(b"ollm-gateway seal key id" + key).digest()[:4]

"""NVIDIA's Remote Attestation Service: the tokens for GPU evidence, and the keys they are signed with.

`POST /v3/attest/gpu` and `/.well-known/jwks.json`. The evidence goes out as the provider gave it; it
says which GPUs ran, and nothing of a request.
"""

import asyncio
import base64

import msgspec

from shared.clock import Clock
from workers.attestation.fetcher import EvidenceAway, Fetcher

KEYS_SECONDS = 3_600.0


class Nras:
    """Of one process."""

    def __init__(self, fetcher: Fetcher, clock: Clock) -> None:
        self._fetcher = fetcher
        self._clock = clock
        self._keys: dict[str, tuple[float, str]] = {}
        self._lock = asyncio.Lock()

    async def attest(self, nras_url: str, payload: str) -> tuple[str, str]:
        """The answer, and the JWKS with the keys it names. Raises EvidenceAway."""
        base = nras_url.rstrip("/")
        found = await self._fetcher.post(f"{base}/v3/attest/gpu", payload.encode())
        if found.status != 200:
            raise EvidenceAway(f"NVIDIA's service answered with status {found.status}")
        answer = found.text
        keys = await self._jwks(base)
        wanted = key_ids(answer)
        if not wanted <= ids_of(keys):
            keys = await self._jwks(base, fresh=True)
        return answer, only(keys, wanted)

    async def _jwks(self, base: str, *, fresh: bool = False) -> str:
        async with self._lock:
            fetched_at, text = self._keys.get(base, (0.0, ""))
            if fresh or not text or self._clock.now() - fetched_at > KEYS_SECONDS:
                found = await self._fetcher.get(f"{base}/.well-known/jwks.json")
                if found.status != 200:
                    raise EvidenceAway(f"NVIDIA's keys answered with status {found.status}")
                text = found.text
                self._keys[base] = (self._clock.now(), text)
            return text


class _Header(msgspec.Struct):
    kid: str = ""


class _Keys(msgspec.Struct):
    keys: list[dict[str, object]] = []


def key_ids(answer: str) -> frozenset[str]:
    """Of every token in an answer; what is none has none."""
    found = set()
    for part in answer.replace("\\", "").split('"'):
        head, dot, _ = part.partition(".")
        if dot and head.startswith("eyJ"):
            found.add(_key_id(head))
    return frozenset(found - {""})


def _key_id(head: str) -> str:
    try:
        text = base64.urlsafe_b64decode(head + "=" * (-len(head) % 4))
        return msgspec.json.decode(text, type=_Header).kid
    except (ValueError, msgspec.DecodeError):
        return ""


def ids_of(keys: str) -> frozenset[str]:
    return frozenset(str(one.get("kid")) for one in _read(keys).keys)


def only(keys: str, wanted: frozenset[str]) -> str:
    """A JWKS of the wanted keys alone: there are thirty, and each lives for two days."""
    chosen = [one for one in _read(keys).keys if one.get("kid") in wanted]
    return msgspec.json.encode({"keys": chosen}).decode()


def _read(keys: str) -> _Keys:
    try:
        return msgspec.json.decode(keys, type=_Keys)
    except msgspec.DecodeError as error:
        raise EvidenceAway("NVIDIA's keys cannot be read") from error

"""The load of the kill tests: chats as `load` makes them, and every other kind of request among them."""

import hashlib
import random
from dataclasses import fields
from typing import Any

from typing_extensions import override

from tests.e2e.load import ECHOES, Order, orders

DRY_MODEL = "vercel_sim_chat"
"""Asked by dry runs alone: calls of its provider are known by that to have no row."""
DRY_PROFILE = "vercel"
DRY_PROVIDER = "vercel_sim"
PANELS = 0.05
CACHED = 0.06
UPLOADS = 0.05
DRY_RUNS = 0.06
CACHED_TEXTS = 50
"""Each is asked for again and again: the first answers are calls, most later ones hits."""
BOUNDARY = "gateway-mixture"
FILE_NAME = "speech.wav"
CHUNK_BYTES = 256 * 1024
"""Of an upload on its stream: files are below and above it."""
HEAD = (
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="model"\r\n\r\n%s\r\n'
    f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{FILE_NAME}"\r\n'
    "content-type: audio/wav\r\n\r\n"
)


class CachedOrder(Order):
    """May be answered from the cache."""

    @override
    def members(self) -> dict[str, Any]:
        return {**Order.members(self), "ollm::cache_options": {"enabled": "on"}}


class DryRun(Order):
    """Leaves no row, whatever becomes of it."""

    @override
    def members(self) -> dict[str, Any]:
        return {**Order.members(self), "ollm::dryrun": True}


class Upload(Order):
    """A file, made of the text."""

    path = "/v1/audio/transcriptions"
    content_type = f"multipart/form-data; boundary={BOUNDARY}"

    @property
    def file(self) -> bytes:
        sizes = (1_000, 40_000, 2 * CHUNK_BYTES)
        size = sizes[self.number % len(sizes)]
        data = self.text.encode()
        return (data * (size // len(data) + 1))[:size]

    @override
    def body(self) -> bytes:
        return b"%b%b\r\n--%b--\r\n" % (
            (HEAD % self.model).encode(),
            self.file,
            BOUNDARY.encode(),
        )

    @override
    def wrong_in(self, document: dict[str, Any], shown: bytes) -> str:
        digest = hashlib.sha256(self.file).hexdigest()
        said = f"{FILE_NAME}: {len(self.file)} bytes, sha256 {digest}"
        return "" if document.get("text") == said else f"not of this file: {shown!r}"


def mixture(count: int, rng: random.Random) -> list[Order]:
    """Exact shares of each kind, in random order."""
    made = orders(count, rng, panels=PANELS)
    echoes = [order for order in made if order.model in ECHOES]
    shares = (round(count * CACHED), round(count * UPLOADS), round(count * DRY_RUNS))
    chosen = rng.sample(echoes, sum(shares))
    for order in chosen[: shares[0]]:
        text = f"cached {order.number % CACHED_TEXTS} {'again ' * 20}".strip()
        made[order.number] = _as(CachedOrder, order, model="sim_echo", text=text)
    for order in chosen[shares[0] : shares[0] + shares[1]]:
        made[order.number] = _as(Upload, order, model="sim_transcribe", stream=False)
    for order in chosen[shares[0] + shares[1] :]:
        made[order.number] = _as(DryRun, order, model=DRY_MODEL)
    return [
        _as(Order, order, model="sim_echo")
        if order.model == DRY_MODEL and not isinstance(order, DryRun)
        else order
        for order in made
    ]


def _as(kind: type[Order], order: Order, **changes: Any) -> Order:
    same = {one.name: getattr(order, one.name) for one in fields(order)}
    return kind(**{**same, **changes})

"""Mixed load on a running gateway: every outcome is classified, and a wrong one is kept with its reason.

The client is asyncio streams with one connection per request: it costs little beside what it
measures, and it sees how the framing of a body ended, which HTTP libraries hide.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import cycle, islice, product
from typing import Any, ClassVar
from urllib.parse import urlsplit

ANSWER_SECONDS = 60.0
"""Far above any pace of the load: whoever waits longer was forgotten."""
CONNECT_SECONDS = 20.0
WORDS = [f"w{n:03d}" for n in range(1000)]
"""Short, so that an estimate by characters never exceeds the count of tokens."""

ECHOES = ("sim_echo", "near_sim_chat", "phala_sim_chat", "vercel_sim_chat")
FAULTS = (
    "sim_fault_500",
    "sim_fault_429",
    "sim_fault_400",
    "sim_fault_401",
    "sim_fault_404",
    "sim_fault_cut_after_20",
    "sim_fault_malformed",
    "sim_fault_error_in_stream",
    "sim_fault_error_200",
    "sim_fault_no_choices",
    "sim_fault_empty_stream",
    "sim_fault_bad_content_type",
)
"""Models that never give a complete answer."""
UNENDED = "sim_fault_no_done"
"""Its streams lack their [DONE]; its whole answers are whole."""
MENDED = ("sim_fault_flaky", "sim_fault_no_usage", "sim_fallback")
"""Models whose fault the gateway makes good: the client gets a whole answer."""
PANELS = ("ollm::function_name::sim_best",)
"""Three calls to a request, two of them at once; the client gets one echo."""


class Outcome(StrEnum):
    COMPLETE = "complete"
    ERROR = "clear error"
    CUT = "cut stream"
    """The connection ended before the answer did: the client can see that it failed."""
    LOST = "connection lost"
    """Refused or reset before the first byte of an answer."""
    CANCELLED = "cancelled by us"
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request of the load: a chat; `mixture` has further kinds."""

    path: ClassVar[str] = "/v1/chat/completions"
    content_type: ClassVar[str] = "application/json"

    number: int
    model: str
    text: str
    stream: bool
    cancel_after: float | None = None
    """Seconds after the request was sent; then its connection is closed."""

    @property
    def must_fail(self) -> bool:
        return self.model in FAULTS or (self.stream and self.model == UNENDED)

    def body(self) -> bytes:
        return json.dumps(self.members()).encode()

    def members(self) -> dict[str, Any]:
        message = {"role": "user", "content": self.text}
        return {"model": self.model, "stream": self.stream, "messages": [message]}

    def wrong_in(self, document: dict[str, Any], shown: bytes) -> str:
        """What makes a whole answer another than the one to this request."""
        choice = (document.get("choices") or [{}])[0]
        if choice.get("message", {}).get("content") != self.text:
            return f"not an echo: {shown!r}"
        if choice.get("finish_reason") != "stop":
            return f"finish_reason {choice.get('finish_reason')!r}"
        return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    order: Order
    outcome: Outcome
    detail: str = ""
    request_id: str = ""
    cost_usd: str = ""
    """As the client was told; streams do not tell it."""
    seconds: float = 0.0


@dataclass(slots=True)
class Reply:
    """What came over one connection, as far as it came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    framing_ended: bool = False
    """The body ended as its framing says it must."""


def orders(
    count: int,
    rng: random.Random,
    *,
    cancelled: float = 0.10,
    faults: float = 0.05,
    mended: float = 0.05,
    panels: float = 0.0,
    cancel_within: float = 0.6,
) -> list[Order]:
    """A mixture with exact shares, in random order: half streams, and the given parts."""
    faulty = _share(round(count * faults), (*FAULTS, UNENDED))
    special = faulty + _share(round(count * mended), MENDED) + _share(round(count * panels), PANELS)
    kinds = special + _share(count - len(special), ECHOES)
    rng.shuffle(kinds)
    leaving = set(rng.sample(range(count), round(count * cancelled)))
    return [
        Order(
            number=number,
            model=model,
            # The number makes each text its own: an answer to another request is not an echo.
            text=" ".join([f"n{number}", *rng.choices(WORDS, k=rng.randint(24, 60))]),
            stream=stream,
            cancel_after=rng.uniform(0, cancel_within) if number in leaving else None,
        )
        for number, (model, stream) in enumerate(kinds)
    ]


def _share(count: int, models: Sequence[str]) -> list[tuple[str, bool]]:
    """Each model as often as the others, and as a stream as often as whole."""
    return list(islice(cycle(product(models, (True, False))), count))


class Load:
    """Sends orders at a steady rate, and judges what comes back."""

    def __init__(self, base_url: str, api_key: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._api_key = api_key
        self.results: list[Result] = []

    async def run(self, wanted: list[Order], *, per_second: float, at_most: int = 400) -> None:
        """Open loop: a slow answer does not keep the next request from being sent."""
        loop, slots = asyncio.get_running_loop(), asyncio.Semaphore(at_most)
        began = loop.time()

        async def one(order: Order) -> None:
            async with slots:
                self.results.append(await self.send(order))

        async with asyncio.TaskGroup() as group:
            for order in wanted:
                await asyncio.sleep(began + order.number / per_second - loop.time())
                group.create_task(one(order))

    async def send(self, order: Order) -> Result:
        began = asyncio.get_running_loop().time()
        reply = Reply()
        outcome, detail = Outcome.WRONG, ""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if await self._exchange(order, reply):
                    outcome = Outcome.CANCELLED
                else:
                    outcome, detail = judge(order, reply)
        except TimeoutError:
            detail = f"no end within {ANSWER_SECONDS} s, status {reply.status}"
        return Result(
            order=order,
            outcome=outcome,
            detail=detail,
            request_id=reply.headers.get("x-request-id", ""),
            cost_usd=reply.headers.get("x-ollm-cost-usd", ""),
            seconds=asyncio.get_running_loop().time() - began,
        )

    async def _exchange(self, order: Order, reply: Reply) -> bool:
        """True when the connection was closed by us before the end."""
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 20)
        except OSError:
            return False
        try:
            writer.write(self._request(order))
            async with asyncio.timeout(order.cancel_after):
                await read_reply(reader, reply)
        except TimeoutError:
            return True
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # how far it came is in the reply
        finally:
            writer.transport.abort()
        return False

    def _request(self, order: Order) -> bytes:
        body = order.body()
        head = (
            f"POST {order.path} HTTP/1.1\r\n"
            f"host: {self._host}\r\nauthorization: Bearer {self._api_key}\r\n"
            f"content-type: {order.content_type}\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def counts(self) -> Counter[str]:
        return Counter(result.outcome.value for result in self.results)

    def of(self, outcome: Outcome) -> list[Result]:
        return [result for result in self.results if result.outcome == outcome]


async def read_reply(reader: asyncio.StreamReader, reply: Reply) -> None:
    """Raises IncompleteReadError where the connection ends too early."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    reply.headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    reply.status = int(head[0].split(" ")[1])
    if "content-length" in reply.headers:
        missing = int(reply.headers["content-length"])
        while missing:
            piece = await reader.read(missing)
            if not piece:
                raise asyncio.IncompleteReadError(b"", missing)
            reply.body += piece
            missing -= len(piece)
    else:
        await _read_chunks(reader, reply)
    reply.framing_ended = True


async def _read_chunks(reader: asyncio.StreamReader, reply: Reply) -> None:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        reply.body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


def judge(order: Order, reply: Reply) -> tuple[Outcome, str]:
    """What a client must think of a reply that it did not cancel."""
    if not reply.status:
        return Outcome.LOST, ""
    if reply.status != 200:
        return _judge_error(reply)
    if order.stream:
        return _judge_stream(order, reply)
    return _judge_whole(order, reply)


def _judge_error(reply: Reply) -> tuple[Outcome, str]:
    if not reply.framing_ended:
        return Outcome.CUT, f"status {reply.status}"
    error = _json(reply.body).get("error")
    if reply.status < 400 or not isinstance(error, dict) or not error.get("message"):
        return Outcome.WRONG, f"status {reply.status} without an error: {reply.body[:200]!r}"
    if error.get("code") == "internal_error":
        return Outcome.WRONG, f"an internal error: {reply.body[:200]!r}"
    return Outcome.ERROR, f"{reply.status} {error.get('code')}"


def _judge_whole(order: Order, reply: Reply) -> tuple[Outcome, str]:
    if not reply.framing_ended:
        return Outcome.CUT, ""
    if order.must_fail:
        return Outcome.WRONG, f"{order.model} answered {reply.body[:200]!r}"
    wrong = order.wrong_in(_json(reply.body), reply.body[:200])
    return (Outcome.WRONG, wrong) if wrong else (Outcome.COMPLETE, "")


@dataclass(slots=True)
class Heard:
    """The events of a stream, added up."""

    text: str = ""
    finish_reason: str | None = None
    error: str = ""
    done: bool = False
    wrong: str = ""

    def event(self, data: str) -> None:
        if self.done or self.error:
            self.wrong = f"an event after the end: {data[:200]!r}"
        elif data == "[DONE]":
            self.done = True
        elif not (document := _json(data.encode())):
            self.wrong = f"an event that is no JSON: {data[:200]!r}"
        elif "error" in document:
            self.error = str(document["error"].get("code"))
        else:
            for choice in document.get("choices") or ():
                self.text += choice.get("delta", {}).get("content") or ""
                self.finish_reason = choice.get("finish_reason") or self.finish_reason


def heard(body: bytes) -> Heard:
    """Only whole events count; what follows the last blank line was cut."""
    found = Heard()
    for event in body.decode("utf-8", "replace").split("\n\n")[:-1]:
        if event.startswith("data: "):
            found.event(event[6:])
        elif event and not event.startswith(":"):
            found.wrong = f"neither data nor a comment: {event[:200]!r}"
    return found


def _judge_stream(order: Order, reply: Reply) -> tuple[Outcome, str]:
    said = heard(reply.body)
    if said.wrong:
        return Outcome.WRONG, said.wrong
    if not order.text.startswith(said.text):
        return Outcome.WRONG, f"not the beginning of the echo: {said.text[-200:]!r}"
    if said.done:
        return _judge_done(order, said, reply)
    if reply.framing_ended:
        return Outcome.WRONG, "a body that ended in order, without [DONE]"
    if said.error == "internal_error":
        return Outcome.WRONG, "an internal error"
    return (Outcome.ERROR, f"stream {said.error}") if said.error else (Outcome.CUT, "")


def _judge_done(order: Order, said: Heard, reply: Reply) -> tuple[Outcome, str]:
    if order.must_fail:
        return Outcome.WRONG, f"{order.model} ended with [DONE]"
    if said.text != order.text:
        return Outcome.WRONG, f"cut, but [DONE]: {said.text[-200:]!r}"
    if said.finish_reason != "stop":
        return Outcome.WRONG, f"finish_reason {said.finish_reason!r}"
    if not reply.framing_ended:
        return Outcome.CUT, "after [DONE]"
    return Outcome.COMPLETE, ""


def _json(data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}

"""Writes questions onto one connection, no faster than the socket takes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx

from workers.providers.http.request import Question
from workers.providers.http.response import Answer

JOIN_BELOW_BYTES = 64 * 1024  # up to here copying costs less than a second buffer to write


class Writer:
    """`paused` is asyncio's word that too much waits to be sent."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.paused = False
        self._transport = transport
        self._unwritten = 0

    def write(self, head: bytes, content: bytes) -> None:
        if len(content) < JOIN_BELOW_BYTES:
            self._transport.write(head + content)
        else:
            self._transport.writelines((head, content))

    async def drain(self, answer: Answer, seconds: float | None) -> bool:
        """Until the socket took what was written; False when the answer came before that."""
        while self.paused and not answer.settled:
            self._unwritten = self._transport.get_write_buffer_size()
            await answer.wait("write", seconds)
        return not self.paused

    def moved(self) -> bool:
        """Whether the socket took anything since this was last asked, or waiting began."""
        before, self._unwritten = self._unwritten, self._transport.get_write_buffer_size()
        return self._unwritten < before

    async def stream(
        self, question: Question, body: httpx.AsyncByteStream, answer: Answer, seconds: float | None
    ) -> bool:
        """Sends the parts as they come. False: the answer came first, the rest stays unsent."""
        self._transport.write(question.head)
        sent = 0
        async with _parts_of(body) as parts:
            while (part := await _next_part(parts, answer)) is not None:
                sent += len(part)
                self._part(question, part, sent)
                if self.paused and not await self.drain(answer, seconds):
                    return False
                if sent == question.length and not question.chunked:
                    await self._expect_end(question, parts, sent)
                    break
        if answer.settled and (question.chunked or sent != question.length):
            return False
        self._end(question, sent)
        return not self.paused or await self.drain(answer, seconds)

    async def _expect_end(self, question: Question, parts: AsyncIterator[bytes], sent: int) -> None:
        """All that was declared is on its way; its answer may come at once, and is no refusal."""
        async for part in parts:
            sent += len(part)
            self._part(question, part, sent)

    def _part(self, question: Question, part: bytes, sent: int) -> None:
        if question.chunked:
            if part:  # an empty chunk would be the last
                self._transport.write(b"%x\r\n%b\r\n" % (len(part), part))
        elif sent > question.length:
            raise _wrong_length(question.request)
        else:
            self._transport.write(part)

    def _end(self, question: Question, sent: int) -> None:
        if question.chunked:
            self._transport.write(b"0\r\n\r\n")
        elif sent != question.length:
            raise _wrong_length(question.request)


async def _next_part(parts: AsyncIterator[bytes], answer: Answer) -> bytes | None:
    """None after the last, and as soon as the answer is here: a part may be long in coming."""
    waiting = asyncio.create_task(_following(parts))  # noqa: TID251  awaited right here
    answer.on_settled = waiting.cancel
    try:
        part = await waiting
    except asyncio.CancelledError:
        if not answer.settled or _is_cancelled():
            raise
        return None
    finally:
        answer.on_settled = None
    return None if answer.settled else part


async def _following(parts: AsyncIterator[bytes]) -> bytes | None:
    return await anext(parts, None)


def _is_cancelled() -> bool:
    """Whether it is the caller that is to stop."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


@asynccontextmanager
async def _parts_of(body: httpx.AsyncByteStream) -> AsyncIterator[AsyncIterator[bytes]]:
    """Left early, a generator behind the body ends here and not when it is collected."""
    parts = aiter(body)
    try:
        yield parts
    finally:
        if isinstance(parts, AsyncGenerator):
            await parts.aclose()


def _wrong_length(request: httpx.Request) -> httpx.LocalProtocolError:
    return httpx.LocalProtocolError("the body is not as long as declared", request=request)

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
            async for part in parts:
                if answer.settled:
                    return False
                sent += len(part)
                self._part(question, part, sent)
                if self.paused and not await self.drain(answer, seconds):
                    return False
        if answer.settled:
            return False
        self._end(question, sent)
        return not self.paused or await self.drain(answer, seconds)

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

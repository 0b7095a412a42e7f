"""One kept-alive HTTP/1.1 connection: writes a question, awaits its answer, keeps the deadlines."""

import asyncio
import hashlib
import ssl
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol, cast

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate
from typing_extensions import override

from workers.providers.http.deadline import Deadline
from workers.providers.http.reader import MalformedError, Reader
from workers.providers.http.request import Question
from workers.providers.http.response import Answer, Stage
from workers.providers.http.writer import Writer

PAUSE_ABOVE_BYTES = 256 * 1024  # unread body per answer; one socket read of uvloop's is as much

Timeouts = Mapping[str, float | None]


class StaleConnectionError(httpx.RemoteProtocolError):
    """A reused connection was closed before the first byte of its answer.

    Most likely the server dropped it while idle and never saw the request; but that cannot be
    known, so nothing is sent again here. Whether to is the caller's retry policy.
    """


class PeerNotAttested(httpx.ConnectError):
    """The peer's key is none of those that were attested. Nothing of the request was sent."""


class Owner(Protocol):
    """The pool, as its connections see it."""

    def checkin(self, connection: "Connection") -> None:
        """The answer is complete and the connection is good for another question."""

    def forget(self, connection: "Connection") -> None:
        """The connection is closed. Called once."""


class NetworkStream:
    """What an answer's `network_stream` extension is, as in httpcore: facts about the socket.

    `get_extra_info("ssl_object").getpeercert(binary_form=True)` is the peer's certificate in DER.
    """

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def get_extra_info(self, name: str) -> object:
        return self._transport.get_extra_info(name)

    @cached_property
    def spki(self) -> str:
        """SHA-256 of the peer's SubjectPublicKeyInfo in hex; empty without TLS, or where its key is
        of a kind we do not know. Read once: a connection's peer does not change."""
        ssl_object = self.get_extra_info("ssl_object")
        if not isinstance(ssl_object, ssl.SSLObject | ssl.SSLSocket):
            return ""
        der = ssl_object.getpeercert(binary_form=True)
        return spki_of(der) if der else ""


def spki_of(certificate: bytes) -> str:
    """Of a certificate in DER; empty where it cannot be read."""
    try:
        key = load_der_x509_certificate(certificate).public_key()
        info = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        return ""
    return hashlib.sha256(info).hexdigest()


class Connection(asyncio.Protocol):
    """Carries one exchange at a time. Closing, by whom or why ever, tells the owner once."""

    network_stream: NetworkStream  # these three from connection_made on
    _transport: asyncio.Transport
    _writer: Writer

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._reader = Reader()
        self._deadline = Deadline(loop, self._expire)
        self._answer: Answer | None = None
        # Of the connection.
        self._closed = False
        self._at_eof = False
        self._reused = False
        self._read_paused = False
        # Of the exchange.
        self._keep_alive = True
        self._sending = False
        self._heard = False
        self._stage: Stage = "idle"
        self._seconds: float | None = None

    @property
    def usable(self) -> bool:
        return not (self._closed or self._at_eof or self._transport.is_closing())

    # The exchange.

    async def ask(self, question: Question, timeouts: Timeouts) -> Answer:
        """Writes the question and waits for the answer's head. Fails or is cancelled: closed."""
        answer = self._begin(question, timeouts)
        writer, seconds = self._writer, timeouts.get("write")
        try:
            if question.body is None:
                writer.write(question.head, question.content)
                self._sending = writer.paused and not await writer.drain(answer, seconds)
            else:
                self._sending = not await writer.stream(question, question.body, answer, seconds)
            if not answer.status:
                await answer.head()
        except BaseException:
            await answer.aclose()  # not `close`: after a complete answer others may be using this
            raise
        return answer

    def _begin(self, question: Question, timeouts: Timeouts) -> Answer:
        self._keep_alive = question.keep_alive
        self._sending = True
        self._heard = False
        self._deadline.clear()
        answer = self._answer = Answer(
            link=self,
            request=question.request,
            loop=self._loop,
            read_seconds=timeouts.get("read"),
        )
        self._reader.expect(answer)
        return answer

    # What asyncio calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._writer = Writer(self._transport)
        self.network_stream = NetworkStream(transport)

    @override
    def data_received(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:  # nobody asked: it must never become the next question's answer
            self.close()
            return
        self._heard = True
        self._deadline.clear()
        malformed: MalformedError | None = None
        try:
            self._reader.feed(data)
        except MalformedError as error:
            malformed = error
        if self._reader.complete:
            self._finish(answer, reusable=malformed is None)
        elif malformed is not None:
            self._break(_remote(answer, f"malformed answer: {malformed}"))
        else:
            self._await_more(answer)

    def _await_more(self, answer: Answer) -> None:
        if answer.waiting:  # bytes came, though none to hand out yet
            self.watch(self._stage, self._seconds)
        elif answer.size > PAUSE_ABOVE_BYTES and not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    @override
    def eof_received(self) -> None:
        self._at_eof = True  # returning None lets the transport close: connection_lost follows

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            if exc is None and self._at_eof and _ends_with_connection(answer):
                answer.end()
            else:
                answer.fail(self._loss(answer, exc))
        self.close()

    @override
    def pause_writing(self) -> None:
        self._writer.paused = True

    @override
    def resume_writing(self) -> None:
        self._writer.paused = False
        if self._sending and self._answer is not None:
            self._answer.wake()

    # The ends.

    def _finish(self, answer: Answer, *, reusable: bool) -> None:
        self._answer = None
        self.resume()
        answer.end()
        if reusable and self._may_stay():
            self._reused = True
            self._owner.checkin(self)
        else:
            self.close()

    def _may_stay(self) -> bool:
        both_willing = self._keep_alive and self._reader.keep_alive
        return both_willing and not self._sending and self.usable

    def _break(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.fail(error)
        self.close()

    def _loss(self, answer: Answer, exc: Exception | None) -> httpx.TransportError:
        if self._reused and not self._heard:
            return StaleConnectionError("closed before the answer", request=answer.request)
        if exc is not None:
            kind = httpx.WriteError if self._sending else httpx.ReadError
            return kind(str(exc), request=answer.request)
        return _remote(answer, "cut within the body" if answer.status else "closed, no answer")

    def shut(self) -> None:
        """Closes with an error for whoever still reads: the transport is going away."""
        answer = self._answer
        if answer is None:
            self.close()
        else:
            self._break(httpx.ReadError("the transport was closed", request=answer.request))

    # The link of an answer.

    def close(self) -> None:
        """At once, without TLS's closing words: cancelling a call must not wait for the peer."""
        self._answer = None
        if not self._closed:
            self._closed = True
            self._deadline.cancel()
            self._transport.abort()
            self._owner.forget(self)

    def resume(self) -> None:
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def watch(self, stage: Stage, seconds: float | None) -> None:
        self._stage, self._seconds = stage, seconds
        self._deadline.set(seconds)

    def _expire(self) -> None:
        answer = self._answer
        if answer is None:  # idle for long enough
            self.close()
            return
        if self._stage == "write" and self._writer.moved():
            self.watch(self._stage, self._seconds)
            return
        kind = httpx.WriteTimeout if self._stage == "write" else httpx.ReadTimeout
        self._break(kind(f"nothing moved for {self._seconds} s", request=answer.request))


def _remote(answer: Answer, reason: str) -> httpx.RemoteProtocolError:
    return httpx.RemoteProtocolError(reason, request=answer.request)


def _ends_with_connection(answer: Answer) -> bool:
    """RFC 9112 §6.3: neither a length nor a coding, so the end of the stream is the end."""
    names = {name.lower() for name, _ in answer.headers}
    return bool(answer.status) and not names & {b"content-length", b"transfer-encoding"}

"""The inference routes whose body is a form with a file, which is passed on while it comes in.

The job is admitted as soon as the form has named the model and a first chunk of the file is there;
the worker then reads the file as it comes. A form that names the model after the file waits, sealed,
in the queue until it has. A form that ends within its first chunk is checked whole before anything
is enqueued.
"""

import asyncio
from functools import partial

from starlette.types import Receive, Scope, Send

from api.body import ClientLeft
from api.estimate import Size
from api.http_protocol import IS_GONE
from api.middleware import REQUEST_ID
from api.multipart import Event, Field, FileBegins, FileBytes, FormReader, boundary_of
from api.problems import send_error
from api.routes.inference import Collaborators, Endpoint, InferenceRoute
from api.standing import telling_refusal, telling_standing
from api.upload import Upload, Uploads
from api.waiter import Waiter
from shared.dialects.faults import bad, missing
from shared.dialects.transcription import Fields
from shared.errors import GatewayError, RequestTimedOut
from shared.job import JobHeader
from shared.upload import CHUNK_BYTES, End, Form, encode_form

FILE = "file"
INTAKE_SECONDS = 600.0
"""For a form to name its model."""
FLUSH_SECONDS = 1.0
"""What a slow client has sent goes on after this long, though it is no full chunk: its provider must
not wait for nothing."""


class UploadInference(InferenceRoute):
    """One instance serves every request of a route in this process."""

    def __init__(self, endpoint: Endpoint, shared: Collaborators, uploads: Uploads) -> None:
        super().__init__(endpoint, shared)
        self._uploads = uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            caller = await self._caller(scope)
            catalog = self._catalogs.current
            reader = FormReader(boundary_of(_content_type(scope)))
        except GatewayError as error:
            await send_error(send, error.body())
            return
        upload = self._uploads.begin(
            caller.tenant,
            scope[REQUEST_ID],
            max_sealed_bytes=catalog.document.queue.max_sealed_bytes,
            is_gone=scope[IS_GONE],
        )
        intake = Intake(receive, reader, upload)
        try:
            await _in_time(intake)
            longest = catalog.document.limits.max_body_bytes
            size = partial(Size, _length(scope) or longest, is_audio=True)
            request = intake.fields.request(selector_is_billed=caller.bills_selector)
            header, terms = await self._job(scope, caller, catalog, request, size)
            waiter = await self._gate.admit(header, intake.form(), catalog, terms)
            if waiter.standing is not None:
                send = telling_standing(send, waiter.standing, self._clock.now())
            await self._exchange(header, waiter, intake, scope, receive, send)
        except GatewayError as error:
            await send_error(telling_refusal(send, error, self._clock.now()), error.body())
        except ClientLeft:
            return
        finally:
            self._uploads.end(upload)

    async def _exchange(
        self,
        header: JobHeader,
        waiter: Waiter,
        intake: "Intake",
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """The file goes up while the answer is waited for: it may come before the file's end."""
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_sent(intake, waiter))
            await self._relay(header, waiter, scope, receive, send)
            sending.cancel()


async def _in_time(intake: "Intake") -> None:
    """Reads to where the job can be admitted. Its own deadline begins there."""
    try:
        async with asyncio.timeout(INTAKE_SECONDS):
            await intake.until_admissible()
    except TimeoutError as error:
        raise RequestTimedOut("The form was too slow.") from error


async def _sent(intake: "Intake", waiter: Waiter) -> None:
    """What goes wrong on the way is the request's answer, and ends its job."""
    try:
        await intake.rest()
    except GatewayError as error:
        waiter.fail(error)
    except ClientLeft:
        waiter.leave()


class Intake:
    """One form on its way in: its fields are kept, its file is handed on."""

    def __init__(self, receive: Receive, reader: FormReader, upload: Upload) -> None:
        self.fields = Fields()
        self._receive = receive
        self._reader = reader
        self._upload = upload
        self._file: FileBegins | None = None
        self._file_bytes = 0
        self._gathered = bytearray()
        self._is_over = False
        self._loop = asyncio.get_running_loop()
        self._sent_at = 0.0

    async def until_admissible(self) -> None:
        """Reads until the model is known and a chunk is full, or to the form's end.

        Raises InvalidRequest, RequestTooLarge, Overloaded, ClientLeft.
        """
        while not self._is_over:
            await self._read()
            while len(self._gathered) >= CHUNK_BYTES:
                if self.fields.has_model:
                    return
                await self._upload.keep(self._chunk())

    def form(self) -> bytes:
        """The body of the job: what the form has said by now."""
        if self._file is None:
            raise missing(FILE)
        _, file_name, content_type = self._file
        return encode_form(Form(self.fields.fresh(), file_name, content_type))

    async def rest(self) -> None:
        """Hands on what was read, and reads on to the end. Raises as `until_admissible`."""
        while not self._is_over or self._gathered:
            while self._is_due():
                await self._upload.send(self._chunk())
                self._sent_at = self._loop.time()
            if not self._is_over:
                await self._read()
        await self._upload.finish(End(self.fields.fresh()))

    def _is_due(self) -> bool:
        if len(self._gathered) >= CHUNK_BYTES:
            return True
        is_late = self._loop.time() - self._sent_at > FLUSH_SECONDS
        return bool(self._gathered) and (self._is_over or is_late)

    def _chunk(self) -> bytes:
        chunk = bytes(self._gathered[:CHUNK_BYTES])
        del self._gathered[:CHUNK_BYTES]
        return chunk

    async def _read(self) -> None:
        message = await self._receive()
        if message["type"] != "http.request":
            raise ClientLeft
        for event in self._reader.feed(message.get("body", b"")):
            self._note(event)
        if not message.get("more_body"):
            self._end()

    def _note(self, event: Event) -> None:
        if isinstance(event, FileBytes):
            self._upload.take_place()
            self._file_bytes += len(event.data)
            self._gathered += event.data
        elif isinstance(event, Field):
            self.fields.add(event.name, event.value)
        elif isinstance(event, FileBegins):
            self._begin(event)

    def _begin(self, event: FileBegins) -> None:
        if event.name != FILE:
            raise bad(event.name, "is not a file of this endpoint", "value_error")
        if self._file is not None:
            raise bad(FILE, "stands twice in the form", "duplicate_key")
        self._file = event

    def _end(self) -> None:
        """A form that was cut is refused here, and its upload never gets its end."""
        self._reader.end()
        if self._file is None:
            raise missing(FILE)
        if not self._file_bytes:
            raise bad(FILE, "must not be empty", "too_short")
        self.fields.deny_unknown()
        self._is_over = True


def _length(scope: Scope) -> int:
    """Of the body, as the client says; 0 where it does not."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)  # the server has refused what is no number
    return 0


def _content_type(scope: Scope) -> bytes:
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type: bytes = value
            return content_type
    return b""

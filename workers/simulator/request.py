"""A chat request as the simulator reads it: what it acts on, everything else let through."""

from collections.abc import Iterator
from typing import Annotated

import msgspec

from workers.simulator.problems import Refused

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    type: str
    text: str | None = None

    @property
    def spoken(self) -> str:
        """Text as it is; anything else by its kind: `image_url` becomes `[image]`."""
        return self.text if self.text is not None else f"[{self.type.partition('_')[0]}]"


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None

    @property
    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(part.spoken for part in self.content)
        return self.content or ""

    @property
    def texts(self) -> list[str]:
        """Only what was written, for counting."""
        if isinstance(self.content, list):
            return [part.text for part in self.content if part.text is not None]
        return [self.content or ""]


class Function(msgspec.Struct):
    name: str
    parameters: dict[str, object] | None = None


class Tool(msgspec.Struct):
    type: str
    function: Function | None = None


class NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    function: NamedFunction


class JsonSchema(msgspec.Struct):
    schema: dict[str, object] = {}


class ResponseFormat(msgspec.Struct):
    type: str
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    provider_options: dict[str, object] | None = msgspec.field(name="providerOptions", default=None)

    @property
    def streamed(self) -> bool:
        return self.stream is True

    @property
    def wants_usage(self) -> bool:
        """A whole answer always has usage, a stream only on demand."""
        if not self.streamed:
            return True
        return self.stream_options is not None and self.stream_options.include_usage is True

    @property
    def output_cap(self) -> int | None:
        caps = [cap for cap in (self.max_tokens, self.max_completion_tokens) if cap is not None]
        return min(caps, default=None)

    @property
    def stops(self) -> list[str]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return [stop for stop in stops if stop]

    def texts(self) -> Iterator[str]:
        for message in self.messages:
            yield from message.texts


def read(body: bytes) -> ChatRequest:
    """Raises Refused (400) on what OpenAI would not take either."""
    try:
        return msgspec.json.decode(body, type=ChatRequest)
    except msgspec.ValidationError as error:
        raise Refused(400, f"Invalid request: {error}", code="invalid_value") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "The body is not valid JSON.", code="invalid_json") from error

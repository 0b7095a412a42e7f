"""Decides what a chat call answers: an echo, a tool call or JSON, as a row of tokens."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Literal, NamedTuple

from workers.simulator import tokens
from workers.simulator.problems import Refused
from workers.simulator.request import ChatRequest, Function, NamedTool
from workers.simulator.schema import instance

ARGUMENT_CHARACTERS = 8  # a tool's arguments travel in pieces of this size, one token each
REASONING_TOKENS = {"none": 0, "minimal": 2, "low": 4, "medium": 8, "high": 16, "xhigh": 32}
DEFAULT_REASONING_TOKENS = 8  # an effort of a name not known here


class Token(NamedTuple):
    kind: Literal["reasoning", "content", "call", "arguments"]
    """`call` opens a tool call; its text is the tool's name."""
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    tokens: Sequence[Token]
    finish_reason: str
    prompt_tokens: int

    def text(self, kind: str) -> str:
        return "".join(token.text for token in self.tokens if token.kind == kind)

    @property
    def reasoning_tokens(self) -> int:
        return sum(token.kind == "reasoning" for token in self.tokens)

    @property
    def usage(self) -> dict[str, object]:
        return tokens.usage(
            prompt=self.prompt_tokens,
            completion=len(self.tokens),
            reasoning=self.reasoning_tokens,
        )

    def without_end(self) -> Iterator[Token]:
        """The answer's text over and over."""
        first = [token for token in self.tokens if token.kind == "content"]
        again = [Token("content", " " + token.text.lstrip()) for token in first]
        return chain(first, chain.from_iterable(repeat(again or [Token("content", " sim")])))


def answer(request: ChatRequest) -> Answer:
    """Raises Refused (400) when the request contradicts itself."""
    said, finish_reason = _said(request)
    spoken = [*_reasoning(request), *said]
    cap = request.output_cap
    if cap is not None and cap < len(spoken):
        spoken, finish_reason = spoken[:cap], "length"
    prompt_tokens = tokens.count_prompt(request.texts(), messages=len(request.messages))
    return Answer(spoken, finish_reason, prompt_tokens)


def _said(request: ChatRequest) -> tuple[list[Token], str]:
    if function := _called(request):
        return _call(function), "tool_calls"
    text = _stopped(_text(request), request.stops)
    return [Token("content", word) for word in tokens.split(text)], "stop"


def _reasoning(request: ChatRequest) -> list[Token]:
    if request.reasoning_effort is None:
        return []
    count = REASONING_TOKENS.get(request.reasoning_effort, DEFAULT_REASONING_TOKENS)
    return [Token("reasoning", " step" if step else "Step") for step in range(count)]


def _called(request: ChatRequest) -> Function | None:
    """The tool to call: the named one, else the first. After a tool's answer, none."""
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    if isinstance(request.tool_choice, NamedTool):
        functions = [f for f in functions if f.name == request.tool_choice.function.name]
        if not functions:
            raise Refused(
                400, "tool_choice names a tool that is not in tools.", param="tool_choice"
            )
    if request.tool_choice == "none" or request.messages[-1].role == "tool":
        return None
    return functions[0] if functions else None


def _call(function: Function) -> list[Token]:
    schema = {"type": "object", **(function.parameters or {})}
    arguments = json.dumps(instance(schema), ensure_ascii=False)
    pieces = [
        arguments[start : start + ARGUMENT_CHARACTERS]
        for start in range(0, len(arguments), ARGUMENT_CHARACTERS)
    ]
    return [Token("call", function.name), *(Token("arguments", piece) for piece in pieces)]


def _text(request: ChatRequest) -> str:
    echo = _echo(request)
    wanted = request.response_format
    if wanted is None or wanted.type == "text":
        return echo
    if wanted.type == "json_object":
        return json.dumps({"echo": echo}, ensure_ascii=False)
    if wanted.type == "json_schema" and wanted.json_schema is not None:
        return json.dumps(instance(wanted.json_schema.schema), ensure_ascii=False)
    raise Refused(400, "response_format is not one this model knows.", param="response_format")


def _echo(request: ChatRequest) -> str:
    """The last user message; without one, the last message."""
    for message in reversed(request.messages):
        if message.role == "user":
            return message.text
    return request.messages[-1].text


def _stopped(text: str, stops: Sequence[str]) -> str:
    found = [place for place in map(text.find, stops) if place >= 0]
    return text[: min(found, default=len(text))]

"""What a zero-retention provider was asked for, and what it says of itself in its answers.

Both are looked through for a few members; nothing else of them is made into anything.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from shared.transcript import ZdrAnswer

MARK = b'"provider_metadata"'
"""Only what holds it is looked through."""
MAX_WORD_CHARACTERS = 64
MAX_ID_CHARACTERS = 256
MAX_PLANNING_CHARACTERS = 200


class _GatewayOptions(msgspec.Struct, frozen=True):
    zeroDataRetention: bool = False  # the provider's names, here and below
    disallowPromptTraining: bool = False


class _Options(msgspec.Struct, frozen=True):
    gateway: _GatewayOptions = _GatewayOptions()


class _Sent(msgspec.Struct, frozen=True):
    providerOptions: _Options = _Options()


class _Metadata(msgspec.Struct, frozen=True):
    gateway: Any = None


class _Said(msgspec.Struct, frozen=True):
    provider_metadata: _Metadata = _Metadata()


class _Choice(msgspec.Struct, frozen=True):
    message: _Said = _Said()
    """Of a whole answer."""
    delta: _Said = _Said()
    """Of a stream's chunk."""


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_decode_sent = msgspec.json.Decoder(_Sent).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class Retention:
    """Of one attempt."""

    __slots__ = ("_said", "_sent")

    def __init__(self) -> None:
        self._sent = _GatewayOptions()
        self._said: dict[str, Any] = {}

    def sent(self, body: bytes) -> None:
        """The request as it leaves."""
        try:
            self._sent = _decode_sent(body).providerOptions.gateway
        except msgspec.DecodeError:
            self._sent = _GatewayOptions()  # whatever it asked for, it was not that

    def answered(self, parts: Sequence[bytes]) -> None:
        """A whole answer, or the data of a stream's events. The last that says something counts."""
        for part in parts:
            if MARK in part:
                said = _said(part)
                self._said = said or self._said

    def answer(self) -> ZdrAnswer:
        said = self._said
        routing = _table(said.get("routing"))
        attempts = routing.get("attempts")
        return ZdrAnswer(
            zero_data_retention=self._sent.zeroDataRetention,
            disallow_prompt_training=self._sent.disallowPromptTraining,
            generation_id=_word(said.get("generationId"), MAX_ID_CHARACTERS),
            final_provider=_word(routing.get("finalProvider"), MAX_WORD_CHARACTERS),
            attempts=len(attempts) if isinstance(attempts, list) else 0,
            planning=_word(routing.get("planningReasoning"), MAX_PLANNING_CHARACTERS),
            cost=_word(said.get("cost"), MAX_WORD_CHARACTERS),
        )


def _said(part: bytes) -> dict[str, Any]:
    """Empty where it is of another shape: what a provider sends is not trusted."""
    try:
        choices = _decode_answer(part).choices
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return {}
    for choice in choices:
        for said in (choice.message, choice.delta):
            if isinstance(said.provider_metadata.gateway, dict):
                return said.provider_metadata.gateway
    return {}


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any, at_most: int) -> str:
    return value[:at_most] if isinstance(value, str) else ""

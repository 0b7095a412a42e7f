"""What a call used, by kind."""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from shared.money import ZERO

MILLISECOND = Decimal("0.001")
AUDIO_BYTES_PER_SECOND = 32_000
"""Of plain PCM at 16 kHz and 16 bits; whatever is compressed takes fewer, so it lasts longer."""
AUDIO_TOKENS_PER_SECOND = 10
MAX_COUNT = 1 << 31
"""Above it a count is a broken answer, not a bill."""
CHARACTERS_PER_TOKEN = 8
"""A floor for estimates of text: no tokenizer in use packs more than this on average."""


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens by kind. Cached, written and audio tokens are a part of their input or output, reasoning
    tokens of the output; what providers report beside it is added when it is read."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    cache_write_tokens: int = 0
    images: int = 0
    image_kind: str = ""
    """`<size>/<quality>` of those images."""
    seconds: Decimal = ZERO
    """Of audio or video."""
    pages: int = 0
    characters: int = 0
    tool_calls: int = 0

    @property
    def counts_more_than_tokens(self) -> bool:
        return bool(self.images or self.seconds or self.pages or self.characters or self.tool_calls)


def usage_from_openai(document: Any) -> Usage | None:
    """Reads the `usage` member of a chat completion or its last chunk; None if it has none.

    Members that are not whole numbers ≥ 0 are taken as 0: a provider's answer is not trusted.
    """
    if not isinstance(document, dict):
        return None
    prompt_details = _member(document, "prompt_tokens_details")
    completion_details = _member(document, "completion_tokens_details")
    prompt, reasoning = (
        _count(document, "prompt_tokens"),
        _count(completion_details, "reasoning_tokens"),
    )
    completion = _count(document, "completion_tokens")
    return Usage(
        input_tokens=prompt,
        output_tokens=output_tokens(
            prompt, completion, reasoning, _count(document, "total_tokens")
        ),
        cached_input_tokens=_count(prompt_details, "cached_tokens"),
        cache_write_tokens=_count(prompt_details, "cache_write_tokens"),
        reasoning_tokens=reasoning,
        audio_input_tokens=_count(prompt_details, "audio_tokens"),
        audio_output_tokens=_count(completion_details, "audio_tokens"),
    )


def output_tokens(prompt: int, completion: int, reasoning: int, total: int) -> int:
    """Reasoning tokens are a part of the completion's, but for providers that count them beside it,
    which shows in their total."""
    is_beside = reasoning and total == prompt + completion + reasoning
    return completion + reasoning if is_beside else completion


def usage_from_transcription(document: Any) -> Usage | None:
    """Reads the `usage` of a transcription: tokens, or the seconds of what was heard."""
    if not isinstance(document, dict):
        return None
    if "input_tokens" not in document:
        seconds = _seconds(document.get("seconds"))
        return None if seconds is None else Usage(seconds=seconds)
    details = _member(document, "input_token_details")
    return Usage(
        input_tokens=_count(document, "input_tokens"),
        output_tokens=_count(document, "output_tokens"),
        audio_input_tokens=_count(details, "audio_tokens"),
    )


def audio_estimate(size: int, told_seconds: Decimal = ZERO) -> Usage:
    """Of a file of so many bytes, which is a floor, for nobody has looked into it; or of so long a
    one, where the answer has told."""
    seconds = max(told_seconds, Decimal(size) / AUDIO_BYTES_PER_SECOND)
    return Usage(
        input_tokens=int(seconds * AUDIO_TOKENS_PER_SECOND),
        seconds=seconds.quantize(MILLISECOND),
    )


def heard_seconds(transcription: str) -> Decimal:
    """How long the sound was, by the times in subtitles (`srt`, `vtt`); 0 where there are none."""
    ends = [_SUBTITLE_END.search(line) for line in transcription.splitlines() if "-->" in line]
    told = [_duration(found) for found in ends if found is not None]
    return max(told, default=ZERO)


def told_seconds(transcription: dict[str, Any]) -> Decimal:
    """The `duration` of a `verbose_json`; 0 where there is none."""
    return _seconds(transcription.get("duration")) or ZERO


def _duration(end: re.Match[str]) -> Decimal:
    hours, minutes, seconds, rest = end.groups()
    return Decimal(f"{int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)}.{rest}")


_SUBTITLE_END = re.compile(r"-->\s*(?:(\d{1,4}):)?(\d{1,2}):(\d{2})[.,](\d{3})")


def counters(usage: Usage) -> dict[str, int]:
    """The members that every `usage` of a chat completion has."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def as_openai(usage: Usage) -> dict[str, Any]:
    """The `usage` of a chat completion, with its details where there are some."""
    document: dict[str, Any] = {**counters(usage)}
    cached, reasoning = usage.cached_input_tokens, usage.reasoning_tokens
    heard, spoken = usage.audio_input_tokens, usage.audio_output_tokens
    if cached or heard:
        document["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": heard}
    if reasoning or spoken:
        details = {"reasoning_tokens": reasoning, "audio_tokens": spoken}
        document["completion_tokens_details"] = details
    return document


def total(usages: Iterable[Usage]) -> Usage:
    """The sum of each kind."""
    some = list(usages)
    sums: dict[str, Any] = {
        name: sum(getattr(one, name) for one in some)
        for name in Usage.__struct_fields__
        if name not in ("seconds", "image_kind")
    }
    kinds = [one.image_kind for one in some if one.image_kind]
    seconds = sum((one.seconds for one in some), ZERO)
    return Usage(**sums, seconds=seconds, image_kind=kinds[0] if kinds else "")


def highest(one: Usage | None, other: Usage) -> Usage:
    """The larger of each kind: streams that repeat usage send running totals, not differences."""
    if one is None:
        return other
    return Usage(
        **{name: max(getattr(one, name), getattr(other, name)) for name in Usage.__struct_fields__}
    )


def _member(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _count(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_COUNT:
        return value
    return 0


def _seconds(value: Any) -> Decimal | None:
    """To the millisecond, which is what its column holds."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        return None
    return Decimal(str(value)).quantize(MILLISECOND)

"""What the simulator takes for a token, and how it counts them: a word with its leading space."""

import re
from collections.abc import Iterable
from zlib import crc32

# White space at the very end has no word to lead, so it goes with the last one.
_WORD = re.compile(r"\s*\S+(?:\s+\Z)?|\s+\Z")
_MESSAGE_OVERHEAD_TOKENS = 3  # what OpenAI's counting recipe charges for each message's frame


def split(text: str) -> list[str]:
    """The tokens of a text; joined they are the text again."""
    return _WORD.findall(text)


def count_prompt(texts: Iterable[str], *, messages: int) -> int:
    return sum(len(text.split()) for text in texts) + _MESSAGE_OVERHEAD_TOKENS * messages


def usage(*, prompt: int, completion: int, reasoning: int = 0) -> dict[str, object]:
    """OpenAI's usage object; reasoning tokens are part of the completion tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def logprob(token: str, *, alternatives: int) -> dict[str, object]:
    """One entry of `logprobs.content`: always the same for the same token."""
    chosen = -(crc32(token.encode()) % 1000) / 10_000  # between -0.1 and 0: a confident model
    rivals = [(f" sim{rank}", chosen - 1.5 * rank) for rank in range(1, alternatives)]
    top = [(token, chosen), *rivals][:alternatives]
    return {**_entry(token, chosen), "top_logprobs": [_entry(text, value) for text, value in top]}


def _entry(token: str, value: float) -> dict[str, object]:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}

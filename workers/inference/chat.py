"""Turns a provider's chat completion, whole or streamed, into the caller's own bytes.

`id`, `model` and `episode_id` become the gateway's; everything else is kept as the provider sent
it. The upstream is always asked for usage; the client sees a usage chunk only if it asked.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from shared.clock import Clock
from shared.ids import dashed
from shared.job import JobHeader
from shared.usage import Usage, as_openai, counters, total, usage_from_openai
from workers.inference import plain_answer
from workers.inference.attempt import Attempt
from workers.inference.chunk_heads import ChunkHead, Rest, text_length
from workers.inference.message import decode, length_of, text_of, tier_of
from workers.inference.upstream_errors import protocol_error
from workers.inference.usage_cost import CostOf, add_cost

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.Encoder().encode


class Earlier(msgspec.Struct, frozen=True):
    """What the calls before the one that answers add to the answer."""

    usage: Usage
    raw_usage: list[Any]
    raw_response: list[Any]


class ChatAnswer:
    """Rewrites the answers of one job."""

    def __init__(
        self,
        header: JobHeader,
        *,
        provider_type: str,
        clock: Clock,
        created: int | None = None,
        earlier: Earlier | None = None,
        cost_of: CostOf | None = None,
    ) -> None:
        """`created` takes the place of what the provider says."""
        self._header = header
        self._cost_of = cost_of
        self._earlier = earlier
        self._owes_raw = earlier is not None and header.include_raw_response
        self._provider_type = provider_type
        self._clock = clock
        self._usage_was_sent = False
        self._ours: dict[str, Any] = {
            "id": f"chatcmpl-{header.request_id}",
            "object": "chat.completion.chunk" if header.stream else "chat.completion",
            "model": header.asked_model,
            "episode_id": dashed(header.episode_id),
        }
        if created is not None:
            self._ours["created"] = created
        self._head = ChunkHead(self._ours)
        self._wants_raw = header.include_raw_usage or header.include_raw_response

    # ---- whole

    def whole(self, data: bytes, attempt: Attempt, input_estimate: int) -> bytes:
        """The client's body. Raises AttemptFailed when it is not a chat completion."""
        adds = self._wants_raw or self._earlier is not None or self._cost_of is not None
        rewritten = None if adds else plain_answer.rewrite(data, self._ours)
        if rewritten is None:
            return self._decoded_whole(data, attempt, input_estimate)
        body, rest, given_id = rewritten
        attempt.upstream_id = text_of(given_id) or ""
        attempt.finish_reason = rest.choices[0].finish_reason
        attempt.content_arrived(text_length(rest.choices[0].message))
        attempt.usage_arrived(rest.usage.usage())
        attempt.service_tier = rest.service_tier or ""
        return body

    def _decoded_whole(self, data: bytes, attempt: Attempt, input_estimate: int) -> bytes:
        document = decode(data)
        choices = self._promised(document)
        self._count_whole(choices, attempt)
        usage = document.get("usage")
        found = usage_from_openai(usage)
        if found is not None:
            attempt.usage_arrived(found)
        if found is None or self._earlier is not None:
            document["usage"] = self._usage(attempt, input_estimate)
        attempt.upstream_id = text_of(document.get("id")) or ""
        document.update(self._ours)
        if not document.get("created"):
            document["created"] = int(self._clock.now())
        if not document.get("system_fingerprint"):
            document["system_fingerprint"] = ""
        attempt.service_tier = tier_of(document)
        if not document.get("service_tier"):
            document["service_tier"] = "default"
        self._add_cost(document, attempt)
        self._add_raw(document, usage, data, attempt)
        return _encode(document)

    def _promised(self, document: Any) -> list[Any]:
        """The choices of a 2xx answer; it must have them, and must not carry an error."""
        if not isinstance(document, dict) or document.get("error"):
            raise protocol_error("The provider answered 200 with an error.")
        choices = document.get("choices")
        if not isinstance(choices, list) or not choices:
            raise protocol_error("The provider's answer has no choices.")
        return choices

    def _count_whole(self, choices: list[Any], attempt: Attempt) -> None:
        choice = choices[0]
        if isinstance(choice, dict):
            attempt.finish_reason = text_of(choice.get("finish_reason"))
            attempt.content_arrived(length_of(choice.get("message")))

    # ---- streamed

    def chunks(self, events: Sequence[bytes], attempt: Attempt) -> Iterator[bytes]:
        """What the client gets for these events, with packed runs (`shared.run`) in it.

        Raises AttemptFailed at an error event.
        """
        at = 0
        while at < len(events):
            tails = self._head.tails(events, at)
            end = at + len(tails)
            rewritten = self._head.rewrite(tails) if tails else None
            if rewritten is None:
                end = max(end, at + 1)
                for event in events[at:end]:
                    yield self._decoded_chunk(decode(event), attempt, event)
            else:
                out, rests = rewritten
                self._count_rests(rests, attempt)
                yield out
            at = end

    def _count_rests(self, rests: Sequence[Rest], attempt: Attempt) -> None:
        deltas = characters = 0
        for rest in rests:
            choice = rest.choices[0]
            delta = choice.delta
            length = len(delta.content) if delta.content else 0
            if delta.reasoning_content:
                length += len(delta.reasoning_content)
            if delta.reasoning:
                length += len(delta.reasoning)
            if delta.refusal:
                length += len(delta.refusal)
            if length:
                deltas += 1
                characters += length
            if choice.finish_reason:
                attempt.finish_reason = choice.finish_reason
        if deltas:
            attempt.content_arrived(characters, deltas=deltas)

    def _decoded_chunk(self, document: Any, attempt: Attempt, raw: bytes) -> bytes:
        if not isinstance(document, dict) or document.get("error"):
            raise protocol_error("The provider's stream carried an error.")
        usage = document.get("usage")
        found = usage_from_openai(usage)
        if found is not None:
            attempt.usage_arrived(found)
        attempt.service_tier = tier_of(document) or attempt.service_tier
        choices = document.get("choices")
        if not isinstance(choices, list):
            raise protocol_error("The provider's stream has an event without choices.")
        if choices:
            self._count_delta(choices[0], attempt)
        elif not self._header.include_usage:
            return b""  # the usage chunk, which the client did not ask for
        else:
            self._usage_was_sent = self._usage_was_sent or found is not None
        attempt.upstream_id = attempt.upstream_id or text_of(document.get("id")) or ""
        document.update(self._ours)
        if found is not None and self._earlier is not None:
            document["usage"] = self._usage(attempt, 0)
        if found is not None and not choices:
            self._add_cost(document, attempt)
        self._add_raw_to_chunk(document, usage, raw, attempt, is_usage_chunk=not choices)
        if choices and not self._header.include_raw_response:
            self._head.learn(raw)
        return b"data: " + _encode(document) + b"\n\n"

    def _count_delta(self, choice: Any, attempt: Attempt) -> None:
        if not isinstance(choice, dict):
            return
        reason = choice.get("finish_reason")
        if reason:
            attempt.finish_reason = text_of(reason)
        length = length_of(choice.get("delta"))
        if length:
            attempt.content_arrived(length)

    def ending(self, attempt: Attempt, input_estimate: int) -> bytes:
        """The last bytes of a complete stream: a usage chunk if one is owed, and [DONE]."""
        if not self._header.include_usage or self._usage_was_sent:
            return DONE
        chunk = {
            **self._ours,
            "created": int(self._clock.now()),
            "choices": [],
            "usage": self._usage(attempt, input_estimate),
        }
        self._add_cost(chunk, attempt)
        return b"data: " + _encode(chunk) + b"\n\n" + DONE

    # ---- both

    def _usage(self, attempt: Attempt, input_estimate: int) -> dict[str, Any]:
        """The counters, from what the provider said or, failing that, from what arrived."""
        estimate = Usage(input_tokens=input_estimate, output_tokens=attempt.output_seen)
        usage = attempt.usage or estimate
        if self._earlier is None:
            return counters(usage)
        return as_openai(total((self._earlier.usage, usage)))

    def _add_cost(self, answer: dict[str, Any], attempt: Attempt) -> None:
        if self._cost_of is not None:
            add_cost(answer, self._cost_of(attempt))

    def _raw(self, data: Any, attempt: Attempt) -> dict[str, Any]:
        return {
            "model_inference_id": dashed(attempt.row_id),
            "provider_type": self._provider_type,
            "api_type": "chat_completions",
            "data": data,
        }

    def _add_raw(self, answer: dict[str, Any], usage: Any, data: bytes, attempt: Attempt) -> None:
        earlier = self._earlier
        if self._header.include_raw_usage:
            before = earlier.raw_usage if earlier else ()
            answer["ollm_raw_usage"] = [*before, self._raw(usage, attempt)]
        if self._header.include_raw_response:
            before = earlier.raw_response if earlier else ()
            own = self._raw(data.decode("utf-8", "replace"), attempt)
            answer["ollm_raw_response"] = [*before, own]

    def _add_raw_to_chunk(
        self,
        chunk: dict[str, Any],
        usage: Any,
        raw: bytes,
        attempt: Attempt,
        *,
        is_usage_chunk: bool,
    ) -> None:
        if self._header.include_raw_usage and is_usage_chunk:
            before = self._earlier.raw_usage if self._earlier else ()
            chunk["ollm_raw_usage"] = [*before, self._raw(usage, attempt)]
        if self._header.include_raw_response:
            chunk["ollm_raw_chunk"] = raw.decode("utf-8", "replace")
        if self._owes_raw and self._earlier is not None:
            self._owes_raw = False
            chunk["ollm_raw_response"] = self._earlier.raw_response

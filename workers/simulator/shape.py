"""Turns tokens into chat completions and chunks as OpenAI shapes them."""

from collections.abc import Mapping, Sequence
from zlib import crc32

from workers.simulator import tokens
from workers.simulator.answer import Answer, Token
from workers.simulator.profiles import Profile
from workers.simulator.request import ChatRequest

Json = dict[str, object]


class Shape:
    """The shape of one call's answer: its id, model and the members every chunk repeats."""

    def __init__(
        self, *, profile: Profile, request: ChatRequest, call_id: str, created: int
    ) -> None:
        self._profile = profile
        self._request = request
        self._call_id = call_id
        self._head: Json = {
            "id": profile.answer_id(call_id),
            "object": "chat.completion.chunk",
            "created": created,
            "model": request.model,
            "system_fingerprint": f"fp_sim_{crc32(request.model.encode()):08x}",
            "service_tier": request.service_tier or "default",
        }
        # OpenAI: with include_usage every chunk has the member, and only the last a value.
        own_chunk = request.wants_usage and not profile.usage_rides_last
        self._no_usage: Json = {"usage": None} if own_chunk else {}

    def whole(self, answer: Answer, *, with_usage: bool = True) -> Json:
        usage = answer.usage
        metadata = self._profile.metadata(self._call_id, self._request.model, usage)
        choice = {
            "index": 0,
            "message": {**self._message(answer), **metadata},
            "logprobs": self._logprobs([t for t in answer.tokens if t.kind == "content"]),
            "finish_reason": answer.finish_reason,
        }
        told: Json = {"usage": self._profile.usage(usage)} if with_usage else {}
        members = self._profile.members(self._call_id)
        return {**self._head, "object": "chat.completion", "choices": [choice], **told, **members}

    def opening(self) -> Json:
        return self._chunk({"role": "assistant", "content": ""})

    def delta(self, token: Token) -> Json:
        logprobs = self._logprobs([token]) if token.kind == "content" else None
        return self._chunk(_delta(token, self._call_id), logprobs=logprobs)

    def closing(self, answer: Answer, *, with_usage: bool) -> list[Json]:
        """The chunk with the finish reason and, where it has one of its own, that with usage."""
        usage = answer.usage
        metadata = self._profile.metadata(self._call_id, self._request.model, usage)
        last = self._chunk({**metadata}, finish_reason=answer.finish_reason)
        last |= self._profile.members(self._call_id)
        if not (with_usage and self._request.wants_usage):
            return [last]
        told: Json = {"usage": self._profile.usage(usage)}
        if self._profile.usage_rides_last:
            return [last | told]
        return [last, {**self._head, "choices": [], **told}]

    def without_choices(self) -> Json:
        kind = "chat.completion.chunk" if self._request.streamed else "chat.completion"
        return {**self._head, "object": kind}

    def _chunk(
        self,
        delta: Json,
        *,
        logprobs: Json | None = None,
        finish_reason: str | None = None,
    ) -> Json:
        choice = {
            "index": 0,
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        return {**self._head, "choices": [choice], **self._no_usage}

    def _message(self, answer: Answer) -> Json:
        message: Json = {"role": "assistant", "content": answer.text("content")}
        if reasoning := answer.text("reasoning"):
            message["reasoning_content"] = reasoning
        if name := answer.text("call"):
            function = {"name": name, "arguments": answer.text("arguments")}
            message["content"] = None
            message["tool_calls"] = [_call(self._call_id, function)]
        return message

    def _logprobs(self, spoken: Sequence[Token]) -> Json | None:
        if not self._request.logprobs:
            return None
        count = self._request.top_logprobs or 0
        entries = [tokens.logprob(token.text, alternatives=count) for token in spoken]
        return {"content": entries, "refusal": None}


def _delta(token: Token, call_id: str) -> Json:
    match token.kind:
        case "content":
            return {"content": token.text}
        case "reasoning":
            return {"reasoning_content": token.text}
        case "call":
            call = _call(call_id, {"name": token.text, "arguments": ""})
            return {"tool_calls": [{"index": 0, **call}]}
        case "arguments":
            return {"tool_calls": [{"index": 0, "function": {"arguments": token.text}}]}


def _call(call_id: str, function: Mapping[str, str]) -> Json:
    return {"id": f"call_{call_id}", "type": "function", "function": function}

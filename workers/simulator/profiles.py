"""What sets NEAR, Phala and Vercel apart from plain OpenAI: checks, headers, ids and shapes."""

import json
from collections.abc import Mapping
from decimal import Decimal

import msgspec
from typing_extensions import override

from workers.simulator.card import Card
from workers.simulator.exchange import Headers
from workers.simulator.problems import Problem, Refused, envelope
from workers.simulator.request import ChatRequest

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_CHARACTERS = 26
_ENCODER = msgspec.json.Encoder(decimal_format="number")


class Profile:
    """Plain OpenAI; the others change what differs."""

    name = "openai"
    base_path = "/v1"
    usage_rides_last = False
    """Usage comes with the last content chunk, not in a chunk of its own."""

    def check(self, headers: Mapping[bytes, bytes], request: ChatRequest) -> None:
        """Raises Refused when the provider's own rules are not met."""

    def answer_id(self, call_id: str) -> str:
        return f"chatcmpl-sim-{call_id}"

    def headers(self, call_id: str) -> Headers:
        return [(b"x-request-id", b"req_" + call_id.encode("ascii"))]

    def stream_headers(self, call_id: str) -> Headers:
        return [(b"cache-control", b"no-cache"), *self.headers(call_id)]

    def problem(self, problem: Problem, call_id: str) -> object:  # noqa: ARG002 - some need it
        return envelope(problem)

    def encode(self, payload: object) -> bytes:
        return _ENCODER.encode(payload)

    def event(self, payload: object) -> bytes:
        return b"data: " + self.encode(payload) + b"\n\n"

    def usage(self, usage: Mapping[str, object]) -> Mapping[str, object]:
        return usage

    def members(self, call_id: str) -> Mapping[str, object]:  # noqa: ARG002 - some need it
        """What the provider adds to an answer and to a stream's last content chunk."""
        return {}

    def metadata(
        self,
        call_id: str,  # noqa: ARG002 - some need it
        model: str,  # noqa: ARG002
        usage: Mapping[str, object],  # noqa: ARG002
    ) -> Mapping[str, object]:
        """What the provider adds to the message, or to a stream's last delta."""
        return {}

    def model_members(self, card: Card) -> Mapping[str, object]:  # noqa: ARG002 - some need it
        """What the provider adds to an entry of its model list."""
        return {}


class Near(Profile):
    """NEAR AI Cloud's gateway. Header names from its live answers and nearai/cloud-api."""

    name = "near"
    base_path = "/near/v1"

    @override
    def check(self, headers: Mapping[bytes, bytes], request: ChatRequest) -> None:
        # The real one resolves aliases unless told not to; here forgetting to tell it is an error.
        if headers.get(b"x-no-aliasing", b"").lower() != b"true":
            raise Refused(400, "Send x-no-aliasing: true.", code="alias_not_allowed", param="model")

    @override
    def headers(self, call_id: str) -> Headers:
        token = call_id.encode("ascii")
        return [
            (b"x-request-id", token),
            (b"inference-id", token),
            (b"x-serving-provider", b"near"),
        ]

    @override
    def model_members(self, card: Card) -> Mapping[str, object]:
        return {
            # Numbers, per million tokens: the two others have strings, per token.
            "pricing": {"input": card.input, "output": card.output},
            "context_length": card.context,
        }


class Phala(Profile):
    """Phala's vllm-proxy, generation A (Dstack-TEE/vllm-proxy, src/app/api/v1/openai.py).

    It takes every chunk apart and dumps it again, with spaces after separators and non-ASCII
    escaped, and follows each event with one more empty line.
    """

    name = "phala"
    base_path = "/phala/v1"

    @override
    def headers(self, call_id: str) -> Headers:
        return [(b"server", b"uvicorn")]

    @override
    def stream_headers(self, call_id: str) -> Headers:
        return [(b"x-accel-buffering", b"no"), *self.headers(call_id)]

    @override
    def event(self, payload: object) -> bytes:
        return b"data: " + json.dumps(payload).encode("ascii") + b"\n\n\n"

    @override
    def model_members(self, card: Card) -> Mapping[str, object]:
        return {
            "is_tee": True,
            "providers": ["phala"],
            "pricing": _per_token({"prompt": card.input, "completion": card.output}),
            "context_length": card.context,
        }


class Vercel(Profile):
    """Vercel's AI Gateway. Shapes from recorded answers; its refusals have a string as `error`."""

    name = "vercel"
    base_path = "/vercel/v1"
    usage_rides_last = True
    _dollars_per_token = Decimal("0.000001")

    @override
    def check(self, headers: Mapping[bytes, bytes], request: ChatRequest) -> None:
        options = (request.provider_options or {}).get("gateway")
        flags = options if isinstance(options, Mapping) else {}
        if not all(flags.get(f) is True for f in ("zeroDataRetention", "disallowPromptTraining")):
            raise Refused(
                400,
                "No ZDR (Zero Data Retention) providers available for model: " + request.model,
                type="no_providers_available",
            )

    @override
    def answer_id(self, call_id: str) -> str:
        # A UUIDv7 and a ULID are the same 128 bits: 48 of time, then chance.
        number = int(call_id, 16)
        digits = (_CROCKFORD[number >> 5 * place & 31] for place in range(_ULID_CHARACTERS))
        return "gen_" + "".join(digits)[::-1]

    @override
    def headers(self, call_id: str) -> Headers:
        return []

    @override
    def problem(self, problem: Problem, call_id: str) -> object:
        if problem.kind == "no_providers_available":
            return {"error": problem.message, "type": problem.kind, "statusCode": problem.status}
        return {**envelope(problem), **self.members(call_id)}

    @override
    def usage(self, usage: Mapping[str, object]) -> Mapping[str, object]:
        cost = self._cost(usage)
        parts = ("upstream_inference_prompt_cost", "upstream_inference_completions_cost")
        details = {"upstream_inference_cost": None, **dict.fromkeys(parts, 0)}
        return {
            **usage,
            "cost": cost,
            "is_byok": False,
            "market_cost": cost,
            "cost_details": details,
        }

    @override
    def members(self, call_id: str) -> Mapping[str, object]:
        return {"generationId": self.answer_id(call_id)}

    @override
    def metadata(
        self, call_id: str, model: str, usage: Mapping[str, object]
    ) -> Mapping[str, object]:
        cost = format(self._cost(usage), "f")
        gateway = {
            "routing": _routing(model),
            "cost": cost,
            "marketCost": cost,
            **self.members(call_id),
        }
        return {"provider_metadata": {"gateway": gateway}}

    @override
    def model_members(self, card: Card) -> Mapping[str, object]:
        prices = {"input": card.input, "output": card.output, "input_cache_read": card.cached_input}
        return {
            "type": "language",
            "context_window": card.context,
            "max_tokens": card.max_output,
            "pricing": _per_token(prices),
        }

    def _cost(self, usage: Mapping[str, object]) -> Decimal:
        return Decimal(str(usage["total_tokens"])) * self._dollars_per_token


def _per_token(prices: Mapping[str, Decimal | None]) -> dict[str, str]:
    return {
        name: format((price / 1_000_000).normalize(), "f")
        for name, price in prices.items()
        if price is not None
    }


def _routing(model: str) -> dict[str, object]:
    attempt = {
        "provider": "simulator",
        "providerApiModelId": model,
        "credentialType": "system",
        "success": True,
        "statusCode": 200,
    }
    tried = {"modelId": model, "canonicalSlug": model, "success": True}
    return {
        "originalModelId": model,
        "resolvedProvider": "simulator",
        "resolvedProviderApiModelId": model,
        "fallbacksAvailable": [],
        "planningReasoning": "ZDR requested: 1 of 1 attempts planned with zero data retention.",
        "canonicalSlug": model,
        "finalProvider": "simulator",
        "attempts": [attempt],
        "modelAttempts": [{**tried, "providerAttempts": [attempt]}],
    }


def profiles() -> tuple[Profile, ...]:
    return (Profile(), Near(), Phala(), Vercel())

"""Endpoints whose answer is one JSON document: embeddings and rerank.

The answer's members are passed on as the bytes the provider sent, but for those that are ours: a
vector of 3,072 numbers is neither read nor written here.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import httpx
import msgspec
from typing_extensions import override

from shared.dialects import embeddings, rerank
from shared.dialects.request import of_job, without_ours
from shared.ids import dashed
from shared.usage import Usage, usage_from_openai
from workers.inference.attempt import Attempt
from workers.inference.job import Job
from workers.inference.message import CHARACTERS_PER_INPUT_TOKEN, text_of
from workers.inference.message import decode as decode_answer
from workers.inference.routing import Route
from workers.inference.upstream_errors import protocol_error
from workers.inference.usage_cost import CostOf, add_cost, of_nothing
from workers.providers.http.response import read_all

Members = dict[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(Members).decode
_decode_items = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


class DocumentExchange(ABC):
    """One job's."""

    endpoint: ClassVar[str]
    promised: ClassVar[str]
    """The member, an array, without which a 200 is no answer."""
    waits_for_client = False

    def __init__(self, job: Job, body: bytes, _routes: Sequence[Route]) -> None:
        self._job = job
        self.header = job.header
        self._fields = of_job(job.header, body)
        self.input_estimate = -(-self._characters(self._fields) // CHARACTERS_PER_INPUT_TOKEN)

    def request(self, route: Route, attempt: Attempt) -> httpx.Request:
        return route.provider.request(
            self.endpoint,
            without_ours(self._fields, route.upstream_model),
            row_id=attempt.row_id,
            timeouts=route.timeouts,
        )

    async def relay(self, response: httpx.Response, route: Route, attempt: Attempt) -> None:
        data = await read_all(response, self._job.max_answer_bytes)
        body = self._body(data, route, attempt, self._job.cost_of)
        if attempt.recording is not None:
            attempt.recording.add([data])
        if attempt.digests is not None:
            attempt.digests.whole(data, body)
        self._job.calls.complete(attempt)
        self._job.end_whole(body)

    def replay(self, pieces: Sequence[bytes], route: Route, attempt: Attempt) -> bytes:
        cost_of = of_nothing if self._job.cost_of is not None else None
        return self._body(pieces[0], route, attempt, cost_of)

    def is_complete(self, pieces: Sequence[bytes]) -> bool:
        """An answer of fewer items than were asked for is passed on, but not kept."""
        members = self._read(pieces[0])
        return len(_decode_items(members[self.promised])) == self._items(self._fields)

    def _body(self, data: bytes, route: Route, attempt: Attempt, cost_of: CostOf | None) -> bytes:
        """The client's. Raises AttemptFailed."""
        members = self._read(data)
        attempt.upstream_id = text_of(_plain(members, "id")) or ""
        usage = self._usage(members)
        if usage is not None:
            attempt.usage_arrived(usage)
        answer = self._answer(members, usage or Usage(input_tokens=self.input_estimate))
        if cost_of is not None:
            add_cost(answer, cost_of(attempt))
        if self._job.header.include_raw_response:
            raw = {
                "model_inference_id": dashed(attempt.row_id),
                "provider_type": route.provider.settings.type,
                "api_type": self.endpoint,
                "data": data.decode("utf-8", "replace"),
            }
            answer["ollm_raw_response"] = [raw]
        return _encode(answer)

    def _read(self, data: bytes) -> Members:
        """Raises AttemptFailed: what a provider sends is not trusted."""
        try:
            members = _decode_members(data)
            data.decode()  # what is passed on unread must be text too
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise protocol_error("The provider's answer is not a JSON object.") from error
        if members.get("error", _NULL) != _NULL:
            raise protocol_error("The provider answered 200 with an error.")
        promised = bytes(members.get(self.promised, _NULL))
        if not promised.startswith(b"[") or not promised[1:-1].strip():
            raise protocol_error(f"The provider's answer has no {self.promised}.")
        return members

    @staticmethod
    @abstractmethod
    def _items(fields: dict[str, Any]) -> int:
        """How many the answer must have for the checked request."""

    @staticmethod
    @abstractmethod
    def _characters(fields: dict[str, Any]) -> int:
        """Of the checked request."""

    @abstractmethod
    def _usage(self, members: Members) -> Usage | None:
        """What the provider counted, if it said."""

    @abstractmethod
    def _answer(self, members: Members, usage: Usage) -> dict[str, Any]:
        """The client's document."""


class EmbeddingsExchange(DocumentExchange):
    """OpenAI's shape in and out."""

    endpoint = "embeddings"
    promised = "data"

    @staticmethod
    @override
    def _items(fields: dict[str, Any]) -> int:
        return embeddings.count_inputs(fields)

    @staticmethod
    @override
    def _characters(fields: dict[str, Any]) -> int:
        return embeddings.count_characters(fields)

    @override
    def _usage(self, members: Members) -> Usage | None:
        return usage_from_openai(_plain(members, "usage"))

    @override
    def _answer(self, members: Members, usage: Usage) -> dict[str, Any]:
        counted = {"prompt_tokens": usage.input_tokens, "total_tokens": usage.input_tokens}
        given = _plain(members, "usage")
        return {
            **members,
            "object": "list",
            "model": self._job.header.asked_model,
            "usage": {**given, **counted} if isinstance(given, dict) else counted,
        }


class RerankExchange(DocumentExchange):
    """Cohere's shape in and out; also what vLLM, Jina and Voyage answer."""

    endpoint = "rerank"
    promised = "results"

    @staticmethod
    @override
    def _items(fields: dict[str, Any]) -> int:
        return min(fields.get("top_n") or len(fields["documents"]), len(fields["documents"]))

    @staticmethod
    @override
    def _characters(fields: dict[str, Any]) -> int:
        return rerank.count_characters(fields)

    @override
    def _usage(self, members: Members) -> Usage | None:
        usage = _plain(members, "usage")
        if not isinstance(usage, dict):
            return None
        # Jina and vLLM say the total alone.
        return usage_from_openai({"prompt_tokens": usage.get("total_tokens"), **usage})

    @override
    def _answer(self, members: Members, usage: Usage) -> dict[str, Any]:
        meta = members.get("meta", msgspec.Raw(b"{}"))
        return {
            "id": members.get("id") or dashed(self._job.header.request_id),
            "results": members["results"],
            "meta": meta,
            **({"usage": members["usage"]} if "usage" in members else {}),
            "model": self._job.header.asked_model,
        }


def _plain(members: Members, name: str) -> Any:
    """A member's value; None where it is absent. Raises AttemptFailed."""
    return decode_answer(bytes(members.get(name, _NULL)))

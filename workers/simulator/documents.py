"""POST embeddings and POST rerank: the same answer for the same document, every time.

Embeddings have an id where a confidential machine answers, as vLLM gives them one: it is what
their signature is asked for by.
"""

import base64
import math
from array import array
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal, TypeVar
from zlib import crc32

import msgspec

from shared.ids import new_id
from workers.simulator.chat import CLIENT_ID_CHARACTERS
from workers.simulator.exchange import Exchange
from workers.simulator.ledger import Call, Ledger
from workers.simulator.problems import Refused
from workers.simulator.profiles import Profile
from workers.simulator.tee.tee import Tee

EMBED_NAMES = frozenset({"sim/embed", "sim_embed"})
RERANK_NAMES = frozenset({"sim/rerank", "sim_rerank"})
DIMENSIONS = 16
"""Unless the request asks for another number."""

Json = dict[str, object]
Request = TypeVar("Request")
Texts = Annotated[list[str], msgspec.Meta(min_length=1)]
Tokens = Annotated[list[int], msgspec.Meta(min_length=1)]


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: object
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=4096)] = DIMENSIONS
    encoding_format: Literal["float", "base64"] = "float"


class Document(msgspec.Struct):
    text: str


class RerankRequest(msgspec.Struct):
    model: str
    query: str
    documents: Annotated[list[str | Document], msgspec.Meta(min_length=1)]
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool = False


class Documents:
    """Every call whose body was read whole is in the ledger."""

    def __init__(self, *, ledger: Ledger, tee: Tee) -> None:
        self._ledger = ledger
        self._tee = tee

    async def embed(self, exchange: Exchange, profile: Profile) -> None:
        await self._serve(exchange, profile, _embedded)

    async def rerank(self, exchange: Exchange, profile: Profile) -> None:
        await self._serve(exchange, profile, _ranked)

    async def _serve(
        self,
        exchange: Exchange,
        profile: Profile,
        answer: Callable[[bytes], tuple[str, int, Json]],
    ) -> None:
        body = await exchange.body()
        try:
            model, tokens, document = answer(body)
        except Refused as refused:
            call = self._begin(exchange, profile, model=None, tokens=0)
            await self._end(call, exchange.respond_json(
                refused.problem.status, profile.problem(refused.problem, call.call_id)
            ))  # fmt: skip
            return
        call = self._begin(exchange, profile, model=model, tokens=tokens)
        headers = profile.headers(call.call_id)
        exchange.tap = tap = self._tee.tap(profile.name, model)
        chat_id = str(document.get("id", f"embd-{call.call_id}"))
        shown = document if tap is None else {"id": chat_id, **document}
        await self._end(call, exchange.respond_json(200, shown, headers=headers))
        if tap is not None:
            self._tee.messages.note(
                profile=profile.name,
                call_id=call.call_id,
                chat_id=chat_id,
                model=model,
                body=body,
                tap=tap,
                streamed=False,
            )

    def _begin(
        self, exchange: Exchange, profile: Profile, *, model: str | None, tokens: int
    ) -> Call:
        client_id = exchange.header("x-client-request-id")
        return self._ledger.begin(
            call_id=new_id(),
            client_request_id=client_id and client_id[:CLIENT_ID_CHARACTERS],
            profile=profile.name,
            model=model,
            fault=None if model else "refused",
            prompt_tokens=tokens,
        )

    async def _end(self, call: Call, answering: Awaitable[None]) -> None:
        try:
            await answering
        except BaseException:
            self._ledger.end(call, "aborted")
            raise
        self._ledger.end(call, "completed" if call.model else "fault")


def _embedded(body: bytes) -> tuple[str, int, Json]:
    request = _read(body, EmbeddingRequest)
    _check_model(request.model, EMBED_NAMES)
    inputs = _inputs(request.input)
    tokens = sum(len(item.split()) if isinstance(item, str) else len(item) for item in inputs)
    data = [
        {"object": "embedding", "index": at, "embedding": _shown(_vector(item, request), request)}
        for at, item in enumerate(inputs)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return (
        request.model,
        tokens,
        {"object": "list", "model": request.model, "data": data, "usage": usage},
    )


def _inputs(given: object) -> list[str | list[int]]:
    """OpenAI's four forms as one list."""
    try:
        if isinstance(given, str):
            return [given]
        if isinstance(given, list) and given and isinstance(given[0], int):
            return [msgspec.convert(given, Tokens)]
        if isinstance(given, list) and given and isinstance(given[0], list):
            return list(msgspec.convert(given, list[Tokens]))
        return list(msgspec.convert(given, Texts))
    except msgspec.ValidationError as error:
        raise Refused(400, str(error), code="invalid_value", param="input") from error


def _vector(item: str | list[int], request: EmbeddingRequest) -> list[float]:
    """Of length 1; near to another's where they share words."""
    numbers = [0.0] * request.dimensions
    for word in item.split() if isinstance(item, str) else map(str, item):
        numbers[crc32(word.lower().encode()) % request.dimensions] += 1.0
    length = math.sqrt(sum(number * number for number in numbers))
    return [number / length for number in numbers] if length else numbers


def _shown(vector: list[float], request: EmbeddingRequest) -> object:
    if request.encoding_format == "float":
        return vector
    return base64.b64encode(array("f", vector).tobytes()).decode()


def _ranked(body: bytes) -> tuple[str, int, Json]:
    request = _read(body, RerankRequest)
    _check_model(request.model, RERANK_NAMES)
    texts = [one if isinstance(one, str) else one.text for one in request.documents]
    scored = sorted(
        ((_likeness(request.query, text), -at) for at, text in enumerate(texts)), reverse=True
    )
    results = [
        {
            "index": -minus,
            "relevance_score": score,
            **({"document": {"text": texts[-minus]}} if request.return_documents else {}),
        }
        for score, minus in scored[: request.top_n]
    ]
    tokens = sum(len(text.split()) for text in (request.query, *texts))
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}}
    return (
        request.model,
        tokens,
        {
            "id": new_id(),
            "results": results,
            "meta": meta,
            "usage": {"total_tokens": tokens},
        },
    )


def _likeness(query: str, text: str) -> float:
    """Words they share, of all words in either."""
    asked, said = set(query.lower().split()), set(text.lower().split())
    return round(len(asked & said) / len(asked | said), 6) if asked | said else 0.0


def _check_model(model: str, names: frozenset[str]) -> None:
    if model not in names:
        raise Refused(404, "The model does not exist.", code="model_not_found", param="model")


def _read(body: bytes, kind: type[Request]) -> Request:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise Refused(400, str(error), code="invalid_value") from error

"""What LangChain must get from the gateway through `langchain-openai`. Each public function is one
case.

Nothing of the package is changed; it runs in an environment of its own.
"""

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import openai
import tiktoken
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

TEXT = 'Grüße, 世界 🌍: tell me "choices": of a\nnew line'
GATEWAY: dict[str, Any] = {
    "base_url": os.environ["GATEWAY_BASE_URL"],
    "api_key": os.environ["GATEWAY_API_KEY"],
    "max_retries": 0,
    "timeout": 30,
}
EMBEDDING = "ollm::embedding_model_name::sim_embed"


class Person(BaseModel):
    """A person."""

    name: str
    age: int
    tags: list[str]


@tool("get_weather")
def _get_weather(city: str, days: int) -> str:
    """The weather of a city."""
    return f"{city}: blue for {days} days"


def _chat(model: str = "sim_echo", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, **GATEWAY, **options)


def _counted(message: AIMessage) -> None:
    usage = message.usage_metadata
    assert usage is not None
    assert usage["input_tokens"] > 0
    assert usage["output_tokens"] > 0
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


# ---- chat


def invokes() -> None:
    answer = _chat().invoke([("system", "Echo."), ("human", TEXT)])
    assert answer.text == TEXT
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.response_metadata["model_name"] == "sim_echo"
    assert answer.id
    _counted(answer)


def invokes_confidential_models() -> None:
    for name in ("near_sim_chat", "phala_sim_chat", "vercel_sim_chat"):
        answer = _chat(name).invoke(TEXT)
        assert answer.text == TEXT, name
        _counted(answer)


def streams_with_usage_at_the_end() -> None:
    chunks = list(_chat(stream_usage=True).stream(TEXT))
    assert sum(bool(chunk.text) for chunk in chunks) > 1
    whole = _joined(chunks)
    assert whole.text == TEXT
    assert whole.response_metadata["finish_reason"] == "stop"
    _counted(whole)


def answers_and_streams_asynchronously() -> None:
    async def ask() -> tuple[list[AIMessage], list[AIMessageChunk]]:
        answers = await _chat().abatch([f"number {number}" for number in range(20)])
        return answers, [chunk async for chunk in _chat("near_sim_chat").astream(TEXT)]

    # Once: LangChain keeps its connections for the next chat, and they belong to this event loop.
    answers, chunks = asyncio.run(ask())
    assert [answer.text for answer in answers] == [f"number {number}" for number in range(20)]
    assert _joined(chunks).text == TEXT


def _joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def calls_a_tool_and_goes_on() -> None:
    chat = _chat().bind_tools([_get_weather])
    question = HumanMessage("What is the weather?")
    asked = chat.invoke([question])
    assert asked.response_metadata["finish_reason"] == "tool_calls"
    (call,) = asked.tool_calls
    assert call["name"] == "get_weather"
    assert isinstance(call["args"]["city"], str)
    assert isinstance(call["args"]["days"], int)
    result = _get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    ended = chat.invoke([question, asked, result])
    assert ended.text
    assert not ended.tool_calls


def streams_a_tool_call() -> None:
    chat = _chat().bind_tools([_get_weather], tool_choice="get_weather")
    chunks = list(chat.stream("What is the weather?"))
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 1
    (call,) = _joined(chunks).tool_calls
    assert call["name"] == "get_weather"
    assert set(call["args"]) == {"city", "days"}


def answers_in_a_structure() -> None:
    for method in ("json_schema", "function_calling"):
        person = _chat().with_structured_output(Person, method=method).invoke("A person.")
        assert isinstance(person, Person), method
    raw = _chat().with_structured_output(Person, include_raw=True).invoke("A person.")
    assert isinstance(raw, dict)
    assert raw["parsing_error"] is None
    assert isinstance(raw["parsed"], Person)
    _counted(raw["raw"])
    document = _chat().with_structured_output(None, method="json_mode").invoke("JSON of a person.")
    assert isinstance(document, dict)


# ---- errors


def _raised(ask: Callable[[], object]) -> openai.APIError:
    try:
        ask()
    except openai.APIError as error:
        return error
    raise AssertionError("nothing was raised")


def _streamed(chat: ChatOpenAI, text: str) -> list[str]:
    return [chunk.text for chunk in chat.stream(text)]


def maps_errors() -> None:
    expected = {
        "sim_fault_400": (openai.BadRequestError, 400),
        "sim_fault_429": (openai.RateLimitError, 429),
        "sim_fault_500": (openai.InternalServerError, 502),
        "unheard_of": (openai.NotFoundError, 404),
    }
    for name, (kind, status) in expected.items():
        chat = _chat(name)
        for ask in (partial(chat.invoke, "x"), partial(_streamed, chat, "x")):
            error = _raised(ask)
            assert isinstance(error, kind), f"{name}: {error!r}"
            assert isinstance(error, openai.APIStatusError)
            assert error.status_code == status, name


def maps_a_wrong_key() -> None:
    chat = ChatOpenAI(model="sim_echo", **{**GATEWAY, "api_key": "sk-ollm-wrong"})
    assert isinstance(_raised(lambda: chat.invoke("x")), openai.AuthenticationError)


def notices_a_cut_stream() -> None:
    read: list[str] = []

    def ask() -> None:
        for chunk in _chat("sim_fault_cut_after_20").stream("word " * 60):
            read.append(chunk.text)  # noqa: PERF401  what came before the cut is counted

    _raised(ask)
    assert "".join(read).startswith("word word")


# ---- embeddings


def embeds_texts() -> None:
    embeddings = OpenAIEmbeddings(model=EMBEDDING, check_embedding_ctx_length=False, **GATEWAY)
    red, blue = embeddings.embed_documents(["red fish", "blue bird"])
    assert len(red) == len(blue) > 0
    assert red != blue
    assert embeddings.embed_query("red fish") == red


def embeds_tokens_which_is_the_default() -> None:
    """Tokens are made by `tiktoken`, which fetches its vocabulary from the internet at first use.

    One of single bytes, put where it keeps those it has, stands in for it: what is sent are lists
    of tokens all the same.
    """
    tiktoken.registry.ENCODINGS["cl100k_base"] = tiktoken.Encoding(
        name="cl100k_base",
        pat_str=r"\s?\S+|\s+",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    embeddings = OpenAIEmbeddings(model=EMBEDDING, chunk_size=2, **GATEWAY)
    assert embeddings.check_embedding_ctx_length
    texts = ["red fish", "blue bird", "Grüße, 世界"]
    vectors = embeddings.embed_documents(texts)
    assert len({tuple(vector) for vector in vectors}) == 3
    assert [len(vector) for vector in vectors] == [len(vectors[0])] * 3
    for text, vector in zip(texts, vectors, strict=True):
        alone = embeddings.embed_query(text)
        # LangChain brings vectors to length 1, and batches must not have mixed them up.
        assert max(abs(one - other) for one, other in zip(alone, vector, strict=True)) < 1e-9

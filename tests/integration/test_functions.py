"""Functions in a worker: what a variant adds reaches the provider, and fallbacks follow."""

import json
from typing import Any

from shared.catalog import Catalog
from tests.catalogs import a_catalog
from tests.integration.provider import answers, fails, scripted
from tests.integration.queue import Queue
from tests.integration.worker import PATIENT, PRICE, Asker, a_worker

SYSTEM = "Be brief.{% if system_text is defined %} {{ system_text }}{% endif %}"


def catalog(first: str, second: str) -> Catalog:
    providers: dict[str, Any] = {
        "p": {"base_url": first, **PATIENT},
        "q": {"base_url": second, **PATIENT},
    }
    models = {name: {"providers": [name], "price": PRICE} for name in ("p", "q")}
    variants = {
        "v": {"model": "p", "system": "Be brief.", "temperature": 0.5},
        "w": {"model": "q", "weight": 0.0, "max_tokens": 7},
    }
    asking = {
        "t": {"model": "p", "system_template": SYSTEM, "user_template": "Weather in {{ city }}?"}
    }
    functions = {"f": {"variants": variants, "fallback": ["w"]}, "t": {"variants": asking}}
    return a_catalog(providers, models, functions=functions)


async def ask(asker: Asker, **header: Any) -> Any:
    return await asker.ask(
        "p", asked_model="ollm::function_name::f", function="f", variant="v", **header
    )


async def test_what_a_variant_adds_reaches_the_provider(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as first, scripted(answers) as second:
        of = catalog(first.url, second.url)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            job = await ask(asker, stream=False)
            answer = json.loads((await asker.ended(job)).answer.body)
            (row,) = await asker.rows(1)
    (call,) = first.calls
    assert call.document["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (call.document["temperature"], call.document["model"]) == (0.5, "p")
    assert answer["model"] == "ollm::function_name::f"
    assert (row.model, row.variant, row.provider) == ("p", "v", "p")


async def test_a_variant_that_fails_is_followed_by_its_fallbacks(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(fails(500)) as first, scripted(answers) as second:
        of = catalog(first.url, second.url)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            job = await ask(asker, stream=True)
            replies = await asker.ended(job)
            rows = await asker.rows(2)
    assert replies.text == "hello"
    (call,) = second.calls
    assert call.document["max_tokens"] == 7
    assert [message["role"] for message in call.document["messages"]] == ["user"]
    assert [(row.variant, row.model, row.status) for row in rows] == [
        ("v", "p", "failed"),
        ("w", "q", "completed"),
    ]


async def test_a_variant_by_name_has_no_fallback(valkey_db: str, queue: Queue) -> None:
    async with scripted(fails(500)) as first, scripted(answers) as second:
        of = catalog(first.url, second.url)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            job = await ask(asker, variant_is_pinned=True)
            error = (await asker.ended(job)).error
    assert error.status == 502
    assert second.calls == []


async def ask_by_template(asker: Asker, **arguments: Any) -> Any:
    part = {"type": "text", "ollm::arguments": arguments}
    body = {"messages": [{"role": "user", "content": [part]}]}
    return await asker.ask("p", body=body, function="t", variant="t")


async def test_a_template_is_rendered_by_the_worker(valkey_db: str, queue: Queue) -> None:
    async with scripted(answers) as first, scripted(answers) as second:
        of = catalog(first.url, second.url)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            await asker.ended(await ask_by_template(asker, city="{{ 1 }}"))
    (call,) = first.calls
    assert call.document["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather in {{ 1 }}?"},
    ]
    assert "ollm::" not in json.dumps(call.document)


async def test_arguments_that_do_not_fit_are_refused_before_any_call(
    valkey_db: str, queue: Queue
) -> None:
    async with scripted(answers) as first, scripted(answers) as second:
        of = catalog(first.url, second.url)
        asker = Asker(queue, of)
        async with a_worker(valkey_db, of):
            error = (await asker.ended(await ask_by_template(asker, town="Oslo"))).error
            await asker.at_rest()
            rows = await asker.rows()
    assert (error.status, error.type) == (400, "invalid_request_error")
    assert "'city' is undefined" in error.message
    assert "Oslo" not in error.message
    assert (first.calls, rows) == ([], [])

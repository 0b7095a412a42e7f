from fastapi import FastAPI

from api import openapi
from shared.dialects.chat import KNOWN_FIELDS, parse


def made() -> openapi.Json:
    app = FastAPI()

    @app.get("/v1/other")
    async def other() -> None: ...

    return openapi.document(app)()


def test_the_raw_chat_route_is_listed_beside_fastapis_own():
    paths = made()["paths"]
    assert set(paths) == {"/v1/chat/completions", "/v1/other"}
    assert {"200", "400", "401", "404", "429", "502", "503", "504"} <= set(
        paths["/v1/chat/completions"]["post"]["responses"]
    )


def test_every_schema_that_is_referred_to_is_there():
    document = made()
    text = str(document)
    referred = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(document["components"]["schemas"])
    assert {"ChatRequest", "ChatAnswer", "ChatChunk", "Error", "Fault", "Usage"} <= referred


def test_every_field_it_lists_is_one_the_check_knows():
    assert set(openapi.CHAT_FIELDS) <= KNOWN_FIELDS


def test_every_field_the_check_looks_at_is_listed():
    passed_on = set(
        "logprobs top_logprobs logit_bias metadata store prediction modalities audio"
        " web_search_options safety_identifier prompt_cache_key prompt_cache_retention"
        " functions function_call".split()
    )
    assert KNOWN_FIELDS - passed_on == set(openapi.CHAT_FIELDS)


def test_its_required_fields_are_enough():
    assert openapi.CHAT_REQUEST["required"] == ["model", "messages"]
    assert parse(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').model == "m"

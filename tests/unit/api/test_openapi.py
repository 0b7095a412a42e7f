from fastapi import FastAPI

from api import openapi
from api.routes.endpoints import DOCUMENTS, FORMS
from api.schemas.chat import CHAT_FIELDS, CHAT_REQUEST
from api.schemas.documents import EMBEDDINGS_REQUEST, RERANK_REQUEST
from api.schemas.terms import Json
from shared.dialects import embeddings, rerank
from shared.dialects.chat import KNOWN_FIELDS, parse


def made() -> Json:
    app = FastAPI()

    @app.get("/v1/other")
    async def other() -> None: ...

    return openapi.document(app)()


def test_the_raw_routes_are_listed_beside_fastapis_own():
    paths = made()["paths"]
    assert set(paths) == {*DOCUMENTS, *FORMS, "/v1/other"}
    for path in (*DOCUMENTS, *FORMS):
        told = set(paths[path]["post"]["responses"])
        assert {"200", "400", "401", "404", "429", "502", "503", "504"} <= told


def test_every_schema_that_is_referred_to_is_there():
    document = made()
    text = str(document)
    referred = {part.split("'")[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(document["components"]["schemas"])
    assert {"ChatRequest", "ChatAnswer", "ChatChunk", "Error", "Fault", "Usage"} <= referred


def test_every_field_it_lists_is_one_the_check_knows():
    assert set(CHAT_FIELDS) <= KNOWN_FIELDS


def test_every_field_the_check_looks_at_is_listed():
    passed_on = set(
        "logprobs top_logprobs logit_bias metadata store prediction modalities audio"
        " web_search_options safety_identifier prompt_cache_key prompt_cache_retention"
        " functions function_call".split()
    )
    assert KNOWN_FIELDS - passed_on == set(CHAT_FIELDS)


def test_its_required_fields_are_enough():
    assert CHAT_REQUEST["required"] == ["model", "messages"]
    assert parse(b'{"model":"m","messages":[{"role":"user","content":"x"}]}').model == "m"


def test_the_fields_of_the_other_endpoints_are_those_their_checks_know():
    assert set(EMBEDDINGS_REQUEST["properties"]) == embeddings.KNOWN_FIELDS
    assert set(RERANK_REQUEST["properties"]) == rerank.KNOWN_FIELDS


def test_every_event_of_a_stream_is_described_and_not_the_chunk_alone():
    content = made()["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert content["text/event-stream"]["schema"] == {"$ref": "#/components/schemas/ChatEvent"}
    data = made()["components"]["schemas"]["ChatEvent"]["properties"]["data"]["anyOf"]
    assert data[0] == {"const": "[DONE]"}

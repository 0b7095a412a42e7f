"""Every way FastAPI's own routes can fail, through the real application class and its handlers."""

import httpx
import pytest
from fastapi import FastAPI, Query
from pydantic import BaseModel

from api import problems
from shared.errors import (
    Fault,
    GatewayError,
    InvalidRequest,
    NotPermitted,
    Overloaded,
    RequestTooLarge,
    TooManyRequests,
    UpstreamFailed,
)


class Thing(BaseModel):
    name: str
    sizes: list[int] = []


class Raises:
    """What `/raise` raises, set by a test."""

    error: Exception = Exception()


@pytest.fixture
def raises() -> Raises:
    return Raises()


@pytest.fixture
async def client(raises):
    app = FastAPI(redirect_slashes=False)

    @app.get("/raise")
    async def raise_it() -> None:
        raise raises.error

    @app.post("/things")
    async def make(thing: Thing, page: int = Query(1, le=10)) -> Thing:
        return thing

    @app.patch("/things")
    async def change() -> None: ...

    problems.install(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequest("m", param="a.b"), 400, "invalid_request_error", "invalid_value"),
        (NotPermitted("m", code="user_blocked"), 403, "permission_error", "user_blocked"),
        (RequestTooLarge("m"), 413, "request_too_large", None),
        (UpstreamFailed("m"), 502, "upstream_error", "upstream_error"),
        (Overloaded("m", code="draining"), 503, "overloaded_error", "draining"),
    ],
)
async def test_an_error_of_ours_is_the_envelope(client, raises, error, status, kind, code):
    raises.error = error
    answer = await client.get("/raise")
    assert answer.status_code == status
    assert answer.json() == {
        "error": {"message": "m", "type": kind, "code": code, "param": error.param},
        "detail": "m",
    }


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("m"), "1"),
        (Overloaded("m", retry_after=0.001), "1"),
        (TooManyRequests("m", retry_after=2.1), "3"),
        (TooManyRequests("m", retry_after=60), "60"),
        (TooManyRequests("m"), "1"),
        (UpstreamFailed("m", retry_after=4), "4"),
        (UpstreamFailed("m"), None),
        (InvalidRequest("m"), None),
    ],
)
async def test_retry_after_is_whole_seconds_rounded_up(client, raises, error, seconds):
    raises.error = error
    assert (await client.get("/raise")).headers.get("retry-after") == seconds


async def test_a_bug_is_a_500_that_says_nothing_of_itself(client, raises):
    raises.error = RuntimeError("sk-ollm-secret in /home/somebody/file.py")
    answer = await client.get("/raise")
    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "message": "An internal error occurred.",
        "type": "api_error",
        "code": "internal_error",
        "param": None,
    }


async def test_an_unknown_route_and_a_wrong_method_are_envelopes_too(client):
    answer = await client.get("/nope")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")
    assert answer.json()["detail"] == "Not Found"
    answer = await client.delete("/things")
    assert (answer.status_code, answer.json()["detail"]) == (405, "Method Not Allowed")
    assert answer.json()["error"]["type"] == "method_not_allowed"
    assert answer.headers["allow"] == "PATCH, POST"
    assert (await client.get("/nope/")).status_code == 404


async def test_a_management_body_is_checked_with_otaris_list_and_never_repeated(client):
    answer = await client.post("/things?page=11", json={"sizes": [1, "a secret"]})
    assert answer.status_code == 422
    assert "a secret" not in answer.text
    detail = answer.json()["detail"]
    assert {"loc": ["body", "name"], "msg": "Field required", "type": "missing"} in detail
    assert all(set(item) == {"loc", "msg", "type"} for item in detail)
    assert ["query", "page"] in [item["loc"] for item in detail]
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["param"] == detail[0]["loc"][-1]


async def test_a_body_that_is_not_json_is_422_with_its_offset(client):
    answer = await client.post(
        "/things", content=b"{nonsense", headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["type"] == "json_invalid"
    assert answer.json()["detail"][0]["loc"] == ["body", 1]


async def test_our_error_while_a_body_is_read_keeps_its_meaning(client):
    async def too_large():
        yield b"{"
        raise RequestTooLarge("too large")

    headers = {"content-type": "application/json"}
    answer = await client.post("/things", content=too_large(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "request_too_large"


async def test_a_raw_route_sends_the_same_document():
    sent = []

    async def send(message):
        sent.append(message)

    error = InvalidRequest("m", param="a", faults=[Fault(("body", "a"), "m", "missing")])
    await problems.send_error(send, error.body(), [(b"x-more", b"1")])
    start, content = sent
    headers = dict(start["headers"])
    assert start["status"] == 400
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-more"] == b"1"
    assert int(headers[b"content-length"]) == len(content["body"])
    assert b'"detail":[{"loc":["body","a"],"msg":"m","type":"missing"}]' in content["body"]


@pytest.mark.parametrize("error", GatewayError.__subclasses__())
def test_every_status_of_the_tree_is_known_to_the_framework_handler(error):
    assert problems.BY_STATUS[error.status] is error
    assert problems.body_of_status(error.status, "m").type == error.type


@pytest.mark.parametrize(("status", "kind"), [(418, "invalid_request_error"), (507, "api_error")])
def test_a_status_without_a_class_still_has_a_type(status, kind):
    assert problems.body_of_status(status, "m").type == kind

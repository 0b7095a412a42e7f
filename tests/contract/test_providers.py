"""Providers: what each enforces is written last, over whatever the client sent."""

from typing import Any

import httpx
import msgspec
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from shared.catalog import Catalog
from shared.document import Provider
from workers.providers.http.prepared import PreparedRequest
from workers.providers.http.request import encode
from workers.providers.near import NearProvider
from workers.providers.openai import OpenAIProvider
from workers.providers.phala import PhalaProvider
from workers.providers.registry import Credentials, build
from workers.providers.vercel import VercelProvider

TIMEOUTS = {"connect": 1.0, "read": 2.0, "write": 3.0, "pool": 4.0}


def sent(kind: type[OpenAIProvider], document: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    provider = kind("p", Provider(), base_url="https://host/v1/", api_key="secret")
    request = provider.request("chat.completions", document, row_id="r1", timeouts=TIMEOUTS)
    assert str(request.url) == "https://host/v1/chat/completions"
    return msgspec.json.decode(request.read()), request


def test_a_call_carries_the_key_the_attempts_id_and_the_timeouts() -> None:
    body, request = sent(OpenAIProvider, {"model": "m"})
    assert body == {"model": "m"}
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["x-client-request-id"] == "r1"
    assert request.headers["accept-encoding"] == "identity"
    assert request.extensions["timeout"] == TIMEOUTS


def test_the_head_of_a_call_is_what_would_be_written_for_the_same_request() -> None:
    provider = OpenAIProvider("p", Provider(), base_url="https://host:444/v1", api_key="secret")
    request = provider.request("chat.completions", {"model": "m"}, row_id="r1", timeouts=TIMEOUTS)
    assert isinstance(request, PreparedRequest)
    ordinary = httpx.Request(
        request.method, request.url, headers=request.headers.raw, stream=request.stream
    )
    assert request.question()[1:] == encode(ordinary)[1:]


def test_a_row_id_that_could_forge_a_header_is_not_sent() -> None:
    provider = OpenAIProvider("p", Provider(), base_url="https://host/v1", api_key="secret")
    with pytest.raises(httpx.LocalProtocolError):
        provider.request("chat.completions", {"model": "m"}, row_id="r1\r\nx: y", timeouts=TIMEOUTS)


def test_a_key_that_cannot_be_sent_switches_its_provider_off_and_no_other() -> None:
    catalog = Catalog.from_toml(
        """
        [providers.bad]
        type = "openai"
        base_url = "https://bad/v1"
        api_key_env = "BAD"
        [providers.good]
        type = "openai"
        base_url = "https://good/v1"
        api_key_env = "GOOD"
        [models.m]
        providers = [{ provider = "good", upstream_model = "m" }]
        """
    )
    keys = {"BAD": SecretStr("se\r\ncret"), "GOOD": SecretStr("secret")}
    with capture_logs() as logs:
        built = build(catalog, Credentials(lambda name: keys.get(name or "")))
    assert set(built) == {"good"}
    assert [(line["action"], line["provider"]) for line in logs] == [("provider_unusable", "bad")]
    assert "cret" not in str(logs)


def test_near_is_asked_for_no_aliases() -> None:
    _, request = sent(NearProvider, {"model": "m"})
    assert request.headers["x-no-aliasing"] == "true"


@pytest.mark.parametrize(
    "options",
    [
        None,
        "nonsense",
        {},
        {"gateway": "nonsense"},
        {"gateway": {"zeroDataRetention": False, "disallowPromptTraining": False}},
        {"gateway": {"zeroDataRetention": "no"}},
    ],
)
def test_vercel_is_always_asked_for_zero_retention(options: object) -> None:
    body, _ = sent(VercelProvider, {"model": "m", "providerOptions": options})
    assert body["providerOptions"]["gateway"] == {
        "zeroDataRetention": True,
        "disallowPromptTraining": True,
    }


def test_a_vercel_client_may_narrow_but_bring_no_credentials_and_no_other_models() -> None:
    asked = {"gateway": {"only": ["a"], "byok": {"x": [{"apiKey": "k"}]}, "models": ["other"]}}
    body, _ = sent(VercelProvider, {"model": "m", "models": ["other"], "providerOptions": asked})
    gateway = body["providerOptions"]["gateway"]
    assert gateway["only"] == ["a"]
    assert set(gateway) == {"only", "zeroDataRetention", "disallowPromptTraining"}
    assert "models" not in body


def test_a_phala_client_may_not_choose_another_route() -> None:
    body, _ = sent(PhalaProvider, {"model": "m", "models": ["other"], "route": "fallback"})
    assert body == {"model": "m"}

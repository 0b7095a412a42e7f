"""Asks providers for their model lists: GET {base}/models, each with its own key."""

import asyncio
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from api.cli.model_list import ListInvalid, ModelList, read_list
from shared.document import Provider

SECONDS = 20.0
"""For a whole list, from the call to its last byte."""
MAX_BYTES = 10_000_000
OURS = {
    "accept": "application/json",
    "accept-encoding": "identity",  # so that a bound on what is read is one on what it becomes
    "user-agent": "ollm-gateway",
}


class NotAnswered(Exception):
    """A provider gave no model list; the message says why, without address or key."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where one provider's list is."""

    name: str
    settings: Provider
    base_url: str
    key: SecretStr


async def ask_all(sources: list[Source]) -> dict[str, ModelList | NotAnswered]:
    """By the provider's name; one that fails takes nothing from the others."""
    # Nothing else than the catalog's addresses is called: no redirect is followed, and neither
    # proxies nor credentials are taken from the environment.
    async with (
        httpx.AsyncClient(timeout=SECONDS, follow_redirects=False, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        asked = {source.name: group.create_task(_asked(client, source)) for source in sources}
    return {name: task.result() for name, task in asked.items()}


async def _asked(client: httpx.AsyncClient, source: Source) -> ModelList | NotAnswered:
    try:
        async with asyncio.timeout(SECONDS):
            body = await _body(client, source)
        return read_list(body, source.settings.type)
    except NotAnswered as error:
        return error
    except ListInvalid as error:
        return NotAnswered(str(error))
    except TimeoutError:
        return NotAnswered(f"no list within {SECONDS:g} s")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        # The error's own words may hold the key.
        return NotAnswered(f"it cannot be asked ({type(error).__name__})")


async def _body(client: httpx.AsyncClient, source: Source) -> bytes:
    headers = {**OURS, "authorization": f"Bearer {source.key.get_secret_value()}"}
    url = source.base_url.rstrip("/") + "/models"
    async with client.stream("GET", url, headers=headers) as response:
        if response.status_code != httpx.codes.OK:
            raise NotAnswered(f"it answered {response.status_code}")
        body = bytearray()
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_BYTES:
                raise NotAnswered(f"its list is longer than {MAX_BYTES} bytes")
    return bytes(body)

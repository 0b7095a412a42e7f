"""The pages for people: complete, and with nothing in them from another host."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from api import problems
from api.routes import pages


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI(docs_url=None, redoc_url=None)
    app.include_router(pages.router("a title"))
    problems.install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as made:
        yield made


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_loads_from_here_alone_and_all_that_it_loads_is_there(
    client: httpx.AsyncClient, path: str
) -> None:
    page = await client.get(path)
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "a title" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    loaded = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)""", page.text)
    assert len(loaded) >= 3
    assert "http" not in "".join(loaded)
    for name in loaded:
        if name != "/openapi.json":
            found = await client.get(name)
            assert (found.status_code, len(found.content) > 1000) == (200, True), name


@pytest.mark.parametrize("name", ["none.js", "..%2fcore.py", "..%2F..%2Fetc%2Fpasswd", "core.py"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/docs/files/{name}")).status_code == 404

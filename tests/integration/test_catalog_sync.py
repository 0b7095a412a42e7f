"""`gateway catalog sync` against providers that really answer, and against some that do not."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from difflib import unified_diff
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.cli import list_client
from api.cli.list_client import NotAnswered, Source, ask_all
from api.cli.model_list import ModelList
from shared.catalog import Catalog
from shared.document import Provider
from shared.price import UNPRICED
from tests.integration.test_simulator import Running, simulator

KEY = "sk-very-secret"
KINDS = {"openai": "/v1", "near": "/near/v1", "phala": "/phala/v1", "vercel": "/vercel/v1"}
SECONDS = 30


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A model of each kind of provider, none with a price, one of them unconfirmed."""
    lines = ["# Ours."]
    for kind, path in KINDS.items():
        lines += [
            f"[providers.{kind}]", f'type = "{kind}"', 'base_url_env = "SIM_URL"',
            f'base_path = "{path}"', 'api_key_env = "SIM_KEY"',
            f"[models.{kind}]", 'output_modalities = ["text"]  # only',
            f'providers = [{{ provider = "{kind}", upstream_model = "sim/chat" }}]',
        ]  # fmt: skip
    file = tmp_path / "gateway.toml"
    file.write_text("\n".join([*lines, ""]).replace("[models.near]", "[models.near]\n" + WAITING))
    return file


WAITING = "active = false  # unconfirmed"


def sync(file: Path, url: str, *options: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.cli", "catalog", "sync", f"--file={file}", *options],
        env={**os.environ, "SIM_URL": url, "SIM_KEY": key},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_every_providers_list_is_understood_and_written_when_told_to(
    sim: Running, file: Path
) -> None:
    file.chmod(0o640)
    before = file.read_text()
    shown = sync(file, sim.url)
    assert (shown.returncode, shown.stderr) == (1, "")
    assert file.read_text() == before

    written = sync(file, sim.url, "--write")
    assert (written.returncode, written.stderr) == (0, "")
    after = file.read_text()
    old, new = before.splitlines(True), after.splitlines(True)
    assert shown.stdout.splitlines(True)[2:] == list(unified_diff(old, new))[2:]
    assert file.stat().st_mode & 0o777 == 0o640
    assert sync(file, sim.url).returncode == 0

    found = Catalog.from_toml(after).document.models
    limits = {
        name: (model.max_input_tokens, model.max_output_tokens) for name, model in found.items()
    }
    assert limits == {
        "openai": (None, None),
        "near": (128_000, None),
        "phala": (128_000, None),
        "vercel": (128_000, 16_384),
    }
    listed = {name: model.price or UNPRICED for name, model in found.items()}
    prices = {name: (price.input, price.output) for name, price in listed.items()}
    chat = (Decimal("0.5"), Decimal("1.5"))
    assert prices == {"openai": (0, 0), "near": chat, "phala": chat, "vercel": chat}
    assert listed["vercel"].cached_input == Decimal("0.25")
    assert found["near"].active
    assert after.startswith("# Ours.\n")
    assert after.count("# only") == 4


def test_a_name_that_a_provider_does_not_list_is_told_and_changes_nothing(
    sim: Running, file: Path
) -> None:
    sync(file, sim.url, "--write")
    file.write_text(file.read_text().replace('"near", upstream_model = "sim/chat"',
                                             '"near", upstream_model = "sim/chatt"'))  # fmt: skip
    told = sync(file, sim.url)
    assert (told.returncode, told.stdout) == (0, "")
    assert "models.near: near does not list 'sim/chatt'; the closest it lists: 'sim/chat'" in (
        told.stderr
    )


def test_a_provider_that_cannot_be_asked_is_named_and_the_others_are_served(
    sim: Running, file: Path
) -> None:
    file.write_text(file.read_text().replace('base_path = "/phala/v1"', 'base_path = "/nowhere"'))
    shown = sync(file, sim.url)
    assert shown.returncode == 2
    assert shown.stderr == "providers.phala: it answered 404\n"
    assert "+price = { input = 0.5, output = 1.5, cached_input = 0.25 }" in shown.stdout


def test_without_a_key_nobody_is_asked(sim: Running, file: Path) -> None:
    shown = sync(file, sim.url, key="")
    assert shown.returncode == 2
    assert "no provider of these models is on and has its key" in shown.stderr


def test_a_file_that_is_no_catalog_is_trouble(sim: Running, file: Path) -> None:
    file.write_text("[models.m]\nproviders = []\n")
    shown = sync(file, sim.url, "--write")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "models.m: at least one provider is needed" in shown.stderr


# ---- answers that are none

Respond = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def provider(respond: Respond) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Its base URL, and the requests it has read."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        try:
            await respond(writer)
            await writer.drain()
        except ConnectionError:
            pass  # the client has had enough
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", heads


def says(status: str, body: bytes = b"", *headers: str) -> Respond:
    head = "\r\n".join([f"HTTP/1.1 {status}", "connection: close", *headers, "", ""])

    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return respond


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b" " * (1 << 16))
        await writer.drain()


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(SECONDS)


async def dripping(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(SECONDS * 100):
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


def source(url: str, name: str = "p", key: str = KEY) -> Source:
    return Source(name, Provider(), url, SecretStr(key))


@pytest.mark.parametrize(
    ("respond", "reason"),
    [
        (says("401 X", b'{"error": "no"}'), "it answered 401"),
        (says("200 X", b"<html>"), "its list is not JSON"),
        (says("200 X", b'{"data": []}'), "its list names no model"),
        (says("200 X", b"", "content-length: 5"), "it cannot be asked (RemoteProtocolError)"),
        (says("nonsense"), "it cannot be asked (RemoteProtocolError)"),
        (endless, "its list is longer than 10000000 bytes"),
        (silent, "no list within 0.5 s"),
        (dripping, "no list within 0.5 s"),
    ],
)
async def test_an_answer_that_is_none_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, respond: Respond, reason: str
) -> None:
    if "0.5 s" in reason:
        monkeypatch.setattr(list_client, "SECONDS", 0.5)
    async with provider(respond) as (url, _), asyncio.timeout(SECONDS / 2):
        answers = await ask_all([source(url)])
    assert isinstance(answers["p"], NotAnswered)
    assert str(answers["p"]) == reason


async def test_a_key_goes_to_its_own_provider_and_follows_no_redirect() -> None:
    listed = says("200 X", json.dumps({"data": [{"id": "m"}]}).encode())
    async with provider(listed) as (there, asked_there):
        redirect = says("302 X", b"", f"location: {there}/models")
        async with provider(redirect) as (here, asked_here):
            answers = await ask_all([source(here, "one"), source(there, "two", "sk-other")])
    assert str(answers["one"]) == "it answered 302"
    assert isinstance(answers["two"], ModelList)
    assert [KEY.encode() in head for head in asked_here] == [True]
    assert [b"Bearer sk-other" in head for head in asked_there] == [True]


@pytest.mark.parametrize("key", [f"{KEY}\nx: y", f"{KEY}\N{EURO SIGN}"])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "ftp://nowhere", "http://[", ""])
async def test_no_message_quotes_a_key(url: str, key: str) -> None:
    answers = await ask_all([source(url, key=key)])
    assert str(answers["p"]).startswith("it cannot be asked (")
    assert KEY not in str(answers["p"])

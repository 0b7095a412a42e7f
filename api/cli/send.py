"""`gateway send`: a first request from the shell."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import httpx
import msgspec
import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.cli.options import DEFAULT_DATA_DIR, DataDir
from api.cli.ready import read_ready

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 120.0
"""Between two bytes: a cold model may think for a while before its first."""
DONE = "[DONE]"


class Target(BaseSettings):
    """Where to send, from GATEWAY_BASE_URL and GATEWAY_API_KEY."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_", extra="ignore")

    base_url: str | None = None
    api_key: SecretStr | None = None


class Unanswered(Exception):
    """No complete answer came; the message says why."""


def add_to(app: typer.Typer) -> None:
    app.command("send")(send)


def send(
    prompt: Annotated[str, typer.Argument(help="What to say to the model.")],
    *,
    model: Annotated[str, typer.Option(help="The model's name in the catalog.")] = "sim_echo",
    stream: Annotated[
        bool, typer.Option("--stream/--no-stream", help="Print the answer as it comes.")
    ] = False,
    base_url: Annotated[
        str | None,
        typer.Option(help="The gateway's address; GATEWAY_BASE_URL or ready.json otherwise."),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(help="The key to use; GATEWAY_API_KEY or ready.json otherwise."),
    ] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Send one message to a model through the gateway, and print what it answers."""
    address, key = _target(base_url, api_key, data_dir)
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": stream,
    }
    try:
        with httpx.Client(
            base_url=address,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
        ) as client:
            for text in _streamed(client, body) if stream else _whole(client, body):
                typer.echo(text, nl=False)
    except Unanswered as error:
        _fail(str(error))
    except httpx.HTTPError as error:
        _fail(f"{address} cannot be reached: {error}")
    typer.echo()


def _target(base_url: str | None, api_key: str | None, data_dir: Path) -> tuple[str, str]:
    """What was asked for by hand, then the environment, then a gateway that runs here."""
    named = Target()
    ready = read_ready(data_dir)
    address = base_url or named.base_url or (ready.base_url if ready else None)
    key = api_key or (named.api_key.get_secret_value() if named.api_key else None)
    key = key or (ready.api_key if ready else None)
    if address is None or key is None:
        _fail(
            f"no gateway is ready on {data_dir}: start `gateway up`, or give --base-url and "
            "--api-key"
        )
    return address.removesuffix("/").removesuffix("/v1"), key


def _whole(client: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    response = client.post("/v1/chat/completions", json=body)
    _check(response)
    try:
        yield response.json()["choices"][0]["message"]["content"] or ""
    except (ValueError, LookupError, TypeError) as error:
        raise Unanswered("the answer is not a chat completion") from error


def _streamed(client: httpx.Client, body: dict[str, Any]) -> Iterator[str]:
    with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            response.read()
        _check(response)
        for data in _events(response):
            if data == DONE:
                return
            yield _delta(data)
    # Text that stops is not text that ends.
    raise Unanswered("the stream was cut before its end")


def _events(response: httpx.Response) -> Iterator[str]:
    for line in response.iter_lines():
        name, _, value = line.partition(":")
        if name == "data":
            yield value.removeprefix(" ")


def _delta(data: str) -> str:
    try:
        chunk = msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Unanswered("the stream holds something that is not a chunk") from error
    if "error" in chunk:
        raise Unanswered(_message(chunk["error"]))
    choices = chunk.get("choices") or [{}]
    return choices[0].get("delta", {}).get("content") or ""


def _check(response: httpx.Response) -> None:
    if not response.is_error:
        return
    try:
        detail = _message(response.json()["error"])
    except (ValueError, LookupError, TypeError):
        detail = response.text[:200]
    raise Unanswered(f"{response.status_code}: {detail}")


def _message(error: Any) -> str:
    return str(error.get("message", error)) if isinstance(error, dict) else str(error)


def _fail(message: str) -> NoReturn:
    typer.echo(f"gateway send: {message}", err=True)
    raise typer.Exit(1)

"""The simulator as a process: every fault's behaviour on the wire, and a ledger that tells all."""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

PROMPT = "the quick brown fox jumps"
PROMPT_TOKENS = 5 + 3
START_SECONDS = 10
ZERO_RETENTION = {"gateway": {"zeroDataRetention": True, "disallowPromptTraining": True}}


@dataclass(frozen=True, slots=True)
class Running:
    """A simulator process and a client for it."""

    process: subprocess.Popen[str]
    url: str
    client: httpx.Client

    def ask(self, model: str, *, base: str = "/v1", **members: Any) -> httpx.Response:
        return self.client.post(f"{base}/chat/completions", json=chat(model, **members))

    def calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = self.client.get("/_sim/ledger").json()["calls"]
        return calls

    def last(self) -> dict[str, Any]:
        return self.calls()[-1]

    def ended(self) -> dict[str, Any]:
        """The last call, once it is no longer running."""
        deadline = time.monotonic() + 2
        while (call := self.last())["status"] == "running" and time.monotonic() < deadline:
            time.sleep(0.005)
        return call


def chat(model: str, **members: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": PROMPT}], **members}


@contextmanager
def simulator(
    *options: str,
    stderr: Path,
    pass_fds: Sequence[int] = (),
    silent: bool = True,
    verify: ssl.SSLContext | bool = True,
) -> Iterator[Running]:
    """Starts one, and afterwards insists that it had nothing to complain about."""
    command = [sys.executable, "-W", "error", "-m", "workers.simulator", *options]
    with stderr.open("a") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, pass_fds=pass_fds
        )
    assert process.stdout is not None
    headers = {"authorization": "Bearer key", "x-client-request-id": "attempt-1"}
    try:
        line = json.loads(process.stdout.readline())
        with httpx.Client(
            base_url=line["url"], headers=headers, timeout=START_SECONDS, verify=verify
        ) as client:
            yield Running(process, line["url"], client)
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS)
        process.stdout.close()
    if silent:
        assert stderr.read_text() == ""


Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def started(*options: str, **others: Any) -> AbstractContextManager[Running]:
        return simulator(*options, stderr=tmp_path / "stderr", **others)

    return started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with simulator(stderr=tmp_path_factory.mktemp("simulator") / "stderr") as running:
        yield running


@pytest.fixture
def sim(shared: Running) -> Running:
    shared.client.delete("/_sim/ledger")
    plain = {
        "latency_ms": 0,
        "first_token_ms": 0,
        "tokens_per_second": 0,
        "slow_first_byte_seconds": 30,
        "stall_seconds": 300,
    }
    assert shared.client.post("/_sim/config", json=plain).status_code == 200
    return shared


def events(body: bytes) -> list[Any]:
    """The events of a whole stream; each is JSON or the bare `[DONE]`."""
    lines = [line.removeprefix(b"data: ") for line in body.split(b"\n") if line]
    return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]


def text_of(chunks: Sequence[Any]) -> str:
    deltas = [c["choices"][0]["delta"] for c in chunks if isinstance(c, dict) and c.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


def read_until_broken(sim: Running, model: str, *, stream: bool) -> tuple[httpx.Headers, bytes]:
    """What arrives of an answer that must not arrive whole."""
    body = b""
    request = chat(model, stream=stream)
    with sim.client.stream("POST", "/v1/chat/completions", json=request) as response:
        try:
            for data in response.iter_raw():
                body += data
        except httpx.RemoteProtocolError:
            return response.headers, body
    pytest.fail("the answer arrived whole")


def open_call(sim: Running, *, path: str = "/v1", **members: Any) -> socket.socket:
    """A call on a socket of its own."""
    body = json.dumps(chat(**members)).encode()
    head = f"POST {path}/chat/completions HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer k\r\ncontent-length: {len(body)}\r\n\r\n"
    port = httpx.URL(sim.url).port
    connection = socket.create_connection(("127.0.0.1", port), timeout=5)
    connection.sendall(head.encode() + body)
    return connection


# Answers


def test_a_whole_answer_echoes_and_counts(sim: Running) -> None:
    answer = sim.ask("sim/echo", service_tier="flex")
    assert answer.headers["x-simulator"] == "true"
    body = answer.json()
    assert body["choices"][0]["message"] == {"role": "assistant", "content": PROMPT}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["prompt_tokens"] == PROMPT_TOKENS
    assert body["usage"]["completion_tokens"] == 5
    assert body["service_tier"] == "flex"
    call = sim.last()
    assert body["id"] == "chatcmpl-sim-" + call["call_id"]
    assert (call["status"], call["http_status"], call["model"]) == ("completed", 200, "sim/echo")
    assert (call["prompt_tokens"], call["completion_tokens"]) == (PROMPT_TOKENS, 5)
    assert call["client_request_id"] == "attempt-1"
    assert call["started_at"] <= call["ended_at"] <= time.time()


def test_a_stream_has_a_role_a_chunk_per_token_an_end_and_usage(sim: Running) -> None:
    answer = sim.ask("sim_chat", stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    role, *tokens, finish, usage, done = events(answer.content)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    spoken = [chunk["choices"][0]["delta"]["content"] for chunk in tokens]
    assert spoken == ["the", " quick", " brown", " fox", " jumps"]
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == PROMPT_TOKENS + 5
    assert done == "[DONE]"
    assert len({chunk["id"] for chunk in (role, *tokens, finish, usage)}) == 1
    assert sim.last()["completion_tokens"] == 5


def test_a_streamed_tool_call_comes_in_pieces_that_join_to_json(sim: Running) -> None:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    function = {"name": "weather", "parameters": {"type": "object", "properties": properties}}
    answer = sim.ask("sim/chat", stream=True, tools=[{"type": "function", "function": function}])
    deltas = [c["choices"][0]["delta"] for c in events(answer.content)[:-1]]
    pieces = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert pieces[0]["function"] == {"name": "weather", "arguments": ""}
    arguments = "".join(piece["function"]["arguments"] for piece in pieces)
    assert json.loads(arguments) == {"city": "…", "days": 0}
    finish = events(answer.content)[-2]
    assert finish["choices"][0]["finish_reason"] == "tool_calls"
    assert sim.last()["completion_tokens"] == len(pieces)


def test_logprobs_come_with_each_token(sim: Running) -> None:
    whole = sim.ask("sim/echo", logprobs=True, top_logprobs=2).json()["choices"][0]["logprobs"]
    assert [entry["token"] for entry in whole["content"]][:2] == ["the", " quick"]
    streamed = events(sim.ask("sim/echo", logprobs=True, top_logprobs=2, stream=True).content)
    chunks = [chunk["choices"][0]["logprobs"] for chunk in streamed[1:-2]]
    assert [entry for chunk in chunks for entry in chunk["content"]] == whole["content"]


def test_reasoning_streams_before_the_answer(sim: Running) -> None:
    wanted: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(sim.ask("sim/chat", reasoning_effort="low", **wanted).content)
    kinds = [next(iter(c["choices"][0]["delta"]), None) for c in chunks[:-2]]
    assert kinds == ["role", *["reasoning_content"] * 4, *["content"] * 5, None]
    assert chunks[-2]["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4


def test_the_openai_client_understands_it(sim: Running) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{sim.url}/v1", api_key="k", max_retries=0) as client:
        ask = {"model": "sim/chat", "messages": [{"role": "user", "content": PROMPT}]}
        assert client.chat.completions.create(**ask).choices[0].message.content == PROMPT
        stream = client.chat.completions.create(**ask, stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in stream) == PROMPT
        assert "sim/echo" in [model.id for model in client.models.list()]


# Profiles


def test_near_wants_no_aliasing_and_says_who_served(sim: Running) -> None:
    assert sim.ask("sim/chat", base="/near/v1").status_code == 400
    answer = sim.client.post(
        "/near/v1/chat/completions", json=chat("sim/chat"), headers={"x-no-aliasing": "true"}
    )
    assert answer.headers["x-serving-provider"] == "near"
    assert answer.headers["inference-id"] in answer.json()["id"]
    assert [call["status"] for call in sim.calls()] == ["fault", "completed"]
    assert [call["profile"] for call in sim.calls()] == ["near", "near"]


def test_vercel_serves_only_without_retention(sim: Running) -> None:
    refused = sim.ask("sim/chat", base="/vercel/v1")
    assert refused.status_code == 400
    assert isinstance(refused.json()["error"], str)
    served = sim.ask("sim/chat", base="/vercel/v1", providerOptions=ZERO_RETENTION).json()
    assert served["id"] == served["generationId"]
    stream = sim.ask(
        "sim/chat",
        base="/vercel/v1",
        providerOptions=ZERO_RETENTION,
        stream=True,
        stream_options={"include_usage": True},
    )
    last, done = events(stream.content)[-2:]
    assert (last["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
    assert last["usage"]["cost"] > 0
    assert "gateway" in last["choices"][0]["delta"]["provider_metadata"]


def test_phala_dumps_its_stream_again(sim: Running) -> None:
    answer = sim.ask("sim/chat", base="/phala/v1", stream=True)
    assert b'data: {"id": "chatcmpl-sim-' in answer.content
    assert text_of(events(answer.content)) == PROMPT


# Who may pass, and what is no call


def test_a_key_is_needed_and_may_be_prescribed(sim: Running, start: Start) -> None:
    with httpx.Client(base_url=sim.url) as nobody:
        refused = nobody.post("/v1/chat/completions", json=chat("sim/echo"))
        empty = nobody.get("/v1/models", headers={"authorization": "Basic abc"})
    assert (refused.status_code, empty.status_code) == (401, 401)
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert sim.calls() == []
    with start("--api-key", "one", "--api-key", "two") as strict:
        keys = {"one": 200, "two": 200, "key": 401}
        for key, status in keys.items():
            headers = {"authorization": f"Bearer {key}"}
            assert strict.client.get("/v1/models", headers=headers).status_code == status


@pytest.mark.parametrize("body", ["", "{", "[]", '{"model": "sim/echo"}', "[" * 100_000])
def test_a_body_that_is_no_request_is_a_400_and_noted_as_refused(sim: Running, body: str) -> None:
    answer = sim.client.post("/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (sim.last()["fault"], sim.last()["model"]) == ("refused", None)


def test_unknown_models_routes_and_methods_are_refused_as_such(sim: Running) -> None:
    assert sim.ask("sim/nothing").json()["error"]["code"] == "model_not_found"
    assert sim.ask("sim/fault/nothing").status_code == 404
    assert sim.client.get("/v2/models").status_code == 404
    wrong = sim.client.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.headers["x-simulator"] == "true"


# Faults


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
def test_a_status_fault_answers_with_an_envelope(sim: Running, status: int, stream: bool) -> None:
    answer = sim.ask(f"sim/fault/{status}", stream=stream)
    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(f"Simulated fault {status}.")
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)
    call = sim.last()
    assert (call["status"], call["http_status"], call["fault"]) == ("fault", status, str(status))
    assert call["completion_tokens"] == 0


def test_a_model_named_with_underscores_fails_likewise(sim: Running) -> None:
    assert sim.ask("sim_fault_503").status_code == 503
    assert sim.last()["fault"] == "503"


@pytest.mark.parametrize("stream", [False, True])
def test_slow_first_byte_sends_nothing_for_a_while_and_then_all(sim: Running, stream: bool) -> None:
    sim.client.post("/_sim/config", json={"slow_first_byte_seconds": 0.2})
    began = time.monotonic()
    body = chat("sim/fault/slow_first_byte", stream=stream)
    with sim.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert time.monotonic() - began >= 0.2
        assert PROMPT.split()[-1] in response.read().decode()
    assert sim.last()["status"] == "completed"


@pytest.mark.parametrize("stream", [False, True])
def test_stall_falls_silent_after_some_tokens(sim: Running, stream: bool) -> None:
    sim.client.post("/_sim/config", json={"stall_seconds": 0.3})
    began = time.monotonic()
    headers, body = read_until_broken(sim, "sim/fault/stall", stream=stream)
    assert time.monotonic() - began >= 0.3
    assert b" jumps" in body
    assert b"[DONE]" not in body
    assert ("content-length" in headers) is not stream
    call = sim.ended()
    assert (call["status"], call["completion_tokens"]) == ("fault", 5)


@pytest.mark.parametrize("stream", [False, True])
def test_cut_after_20_closes_the_socket_after_20_tokens(sim: Running, stream: bool) -> None:
    headers, body = read_until_broken(sim, "sim/fault/cut_after_20", stream=stream)
    if stream:
        spoken = text_of(events(body))
    else:
        assert int(headers["content-length"]) > len(body)
        spoken = body.partition(b'"content":"')[2].decode()
    assert spoken == " ".join([PROMPT] * 4)
    call = sim.last()
    assert (call["status"], call["completion_tokens"], call["http_status"]) == ("fault", 20, 200)


def test_malformed_is_garbage_amid_a_stream_that_looks_complete(sim: Running) -> None:
    body = sim.ask("sim/fault/malformed", stream=True).content
    assert body.endswith(b"data: [DONE]\n\n")
    broken = []
    for line in filter(None, body.split(b"\n")):
        try:
            events(line)
        except json.JSONDecodeError:
            broken.append(line)
    assert len(broken) == 1
    assert sim.last()["status"] == "fault"
    with pytest.raises(json.JSONDecodeError):
        sim.ask("sim/fault/malformed").json()


@pytest.mark.parametrize("stream", [False, True])
def test_endless_ignores_the_cap_and_ends_only_with_the_client(sim: Running, stream: bool) -> None:
    sim.client.post("/_sim/config", json={"tokens_per_second": 2000})
    body = chat("sim/fault/endless", stream=stream, max_tokens=3)
    received = b""
    with sim.client.stream("POST", "/v1/chat/completions", json=body) as response:
        for data in response.iter_raw():
            received += data
            assert len(received) < 1_000_000
            if received.count(b" brown") >= 30:  # of the capped "the quick brown", over and over
                break
    call = sim.ended()
    assert call["status"] == "aborted"
    assert call["completion_tokens"] >= 90
    assert b"[DONE]" not in received


def test_no_usage_is_a_complete_answer_without_usage(sim: Running) -> None:
    assert "usage" not in sim.ask("sim/fault/no_usage").json()
    wanted: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = events(sim.ask("sim/fault/no_usage", **wanted).content)
    assert done == "[DONE]"
    assert not any(chunk.get("usage") for chunk in chunks)
    assert sim.last()["status"] == "completed"


def test_error_in_stream_is_an_event_midway(sim: Running) -> None:
    *chunks, error, done = events(sim.ask("sim/fault/error_in_stream", stream=True).content)
    assert (error["error"]["type"], done) == ("server_error", "[DONE]")
    assert text_of(chunks) == "the quick"
    assert (sim.last()["status"], sim.last()["completion_tokens"]) == ("fault", 2)
    assert sim.ask("sim/fault/error_in_stream").status_code == 500


@pytest.mark.parametrize("stream", [False, True])
def test_error_200_hides_an_error_under_success(sim: Running, stream: bool) -> None:
    answer = sim.ask("sim/fault/error_200", stream=stream)
    assert (answer.status_code, list(answer.json())) == (200, ["error"])
    assert (sim.last()["status"], sim.last()["http_status"]) == ("fault", 200)


def test_no_choices_lacks_what_the_endpoint_promises(sim: Running) -> None:
    whole = sim.ask("sim/fault/no_choices")
    assert whole.status_code == 200
    assert "choices" not in whole.json()
    chunk, done = events(sim.ask("sim/fault/no_choices", stream=True).content)
    assert "choices" not in chunk
    assert done == "[DONE]"


def test_empty_stream_goes_straight_to_done(sim: Running) -> None:
    assert sim.ask("sim/fault/empty_stream", stream=True).content == b"data: [DONE]\n\n"
    assert sim.ask("sim/fault/empty_stream").content == b""


def test_no_done_ends_the_body_properly_but_not_the_stream(sim: Running) -> None:
    chunks = events(sim.ask("sim/fault/no_done", stream=True).content)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert text_of(chunks) == PROMPT
    assert sim.last()["status"] == "fault"


def test_flaky_fails_every_first_attempt_of_a_body(sim: Running) -> None:
    statuses = [sim.ask("sim/fault/flaky", seed=1).status_code for _ in range(4)]
    assert statuses == [500, 200, 500, 200]
    mixed = [sim.ask("sim/fault/flaky", seed=seed).status_code for seed in (2, 3, 3, 2)]
    assert mixed == [500, 500, 200, 200]


def test_redirect_points_to_another_host(sim: Running) -> None:
    answer = sim.ask("sim/fault/redirect")
    assert answer.status_code == 302
    assert httpx.URL(answer.headers["location"]).host == "elsewhere.invalid"


@pytest.mark.parametrize("stream", [False, True])
def test_huge_is_at_least_twenty_megabytes(sim: Running, stream: bool) -> None:
    answer = sim.ask("sim/fault/huge", stream=stream)
    assert len(answer.content) >= 20_000_000
    assert (sim.last()["status"], sim.last()["completion_tokens"]) == ("completed", 20 * 1024)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_content_type_is_a_page_for_people(sim: Running, stream: bool) -> None:
    answer = sim.ask("sim/fault/bad_content_type", stream=stream)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")


# Clients that leave


@pytest.mark.parametrize(
    ("model", "stream", "pace"),
    [
        ("sim/echo", True, {"tokens_per_second": 10}),
        ("sim/echo", False, {"tokens_per_second": 1}),
        ("sim/echo", True, {"latency_ms": 5000}),
        ("sim/echo", True, {"first_token_ms": 5000}),
        ("sim/fault/slow_first_byte", False, {}),
        ("sim/fault/stall", True, {}),
        ("sim/fault/endless", True, {}),
    ],
)
def test_a_client_that_leaves_is_noticed_within_250_ms(
    sim: Running, model: str, stream: bool, pace: dict[str, float]
) -> None:
    sim.client.post("/_sim/config", json=pace)
    with open_call(sim, model=model, stream=stream):
        time.sleep(0.1)
        running = sim.last()
        left_at = time.time()
    call = sim.ended()
    assert running["status"] == "running"
    assert call["status"] == "aborted"
    assert call["ended_at"] - left_at < 0.25
    assert call["closed_after_ms"] == pytest.approx(
        (call["ended_at"] - call["started_at"]) * 1000, abs=0.01
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_while_data_waits_for_it_is_aborted(
    sim: Running, stream: bool
) -> None:
    with open_call(sim, model="sim/fault/huge", stream=stream) as connection:
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(0.05)
    call = sim.ended()
    assert call["status"] == "aborted"
    assert call["completion_tokens"] < 20 * 1024


def test_an_aborted_stream_counts_the_tokens_written(sim: Running) -> None:
    sim.client.post("/_sim/config", json={"tokens_per_second": 20})
    with open_call(sim, model="sim/fault/endless", stream=True) as connection:
        time.sleep(0.3)
        written = connection.recv(100_000).count(b'"content":') - 1
    call = sim.ended()
    assert 4 <= written <= call["completion_tokens"] <= written + 1


# Pace, ledger, process


def test_the_pace_is_shown_changed_and_guarded(sim: Running) -> None:
    changed = sim.client.post("/_sim/config", json={"latency_ms": 120, "first_token_ms": 60})
    assert changed.json() == sim.client.get("/_sim/config").json()
    began = time.monotonic()
    sim.ask("sim/echo")
    assert 0.18 <= time.monotonic() - began < 1
    for wrong in ('{"latency_ms": -1}', '{"warp": 1}', "[]", "{", "\xff"):
        assert sim.client.post("/_sim/config", content=wrong).status_code == 400
    assert sim.client.get("/_sim/config").json() == changed.json()


def test_a_token_rate_spaces_the_tokens(sim: Running) -> None:
    sim.client.post("/_sim/config", json={"tokens_per_second": 50})
    body = chat("sim/echo", stream=True)
    with sim.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = ((time.monotonic(), line) for line in response.iter_lines())
        times = [at for at, line in lines if '"delta":{"content"' in line]
    assert len(times) == 5
    assert times[-1] - times[0] == pytest.approx(4 / 50, abs=0.04)


def test_the_ledger_pages_and_sums_up(sim: Running) -> None:
    before = sim.client.get("/_sim/ledger/summary").json()["last"]
    for _ in range(3):
        sim.ask("sim/echo")
    page = sim.client.get("/_sim/ledger", params={"after": before, "limit": 2}).json()
    assert [call["n"] - before for call in page["calls"]] == [1, 2]
    rest = sim.client.get("/_sim/ledger", params={"after": page["next_after"]}).json()
    assert [call["n"] - before for call in rest["calls"]] == [3]
    summary = sim.client.get("/_sim/ledger/summary").json()
    assert summary["by_status"] == {"running": 0, "completed": 3, "aborted": 0, "fault": 0}
    assert summary["completion_tokens"] == 15
    assert sim.client.get("/_sim/ledger", params={"after": "x"}).status_code == 400


def test_the_ledger_file_survives_a_killed_simulator_and_holds_no_content(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.jsonl"
    with start("--ledger", str(path)) as first:
        first.ask("sim/echo")
        first.ask("sim/fault/400")
        with open_call(first, model="sim/fault/stall", stream=True) as connection:
            connection.recv(1000)
            before = first.calls()
            first.process.kill()
            first.process.wait(timeout=START_SECONDS)
    with start("--ledger", str(path)) as second:
        after = second.calls()
        assert after[:2] == before[:2]
        assert after[2]["call_id"] == before[2]["call_id"]
        assert (after[2]["status"], after[2]["fault"]) == ("fault", "simulator_stopped")
        second.ask("sim/echo")
        assert second.last()["n"] == 4
    content = path.read_text()
    assert not any(word in content for word in PROMPT.split())


def test_it_serves_on_an_inherited_socket_at_the_pace_of_its_options(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        number = str(listener.fileno())
        with start("--fd", number, "--latency-ms", "30", pass_fds=[listener.fileno()]) as running:
            assert running.url == f"http://127.0.0.1:{port}"
            assert running.client.get("/_sim/config").json()["latency_ms"] == 30


def test_an_impossible_pace_is_refused_at_the_start(start: Start, tmp_path: Path) -> None:
    with (
        suppress(json.JSONDecodeError),
        start("--latency-ms", "-5", silent=False) as running,
    ):
        pytest.fail(f"started at {running.url}")
    assert "latency_ms" in (tmp_path / "stderr").read_text()

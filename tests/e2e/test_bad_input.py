"""Whatever is wrong with a request: a 4xx in the envelope at once, nothing enqueued, nothing kept."""

import time
from pathlib import Path

import httpx

from tests.e2e.bad_input import Case, cases
from tests.e2e.ledger import Books
from tests.e2e.started import StartedGateway
from tests.e2e.stillness import unrest

ANSWER_SECONDS = 1.0
GROWTH_MIB = 48
LEAST = 300


def ask(client: httpx.Client, case: Case, key: str) -> tuple[httpx.Response, float]:
    headers = {**case.headers, **({"authorization": f"Bearer {key}"} if case.with_key else {})}
    began = time.monotonic()
    answer = client.request(case.method, case.path, content=case.body, headers=headers)
    return answer, time.monotonic() - began


def fault(answer: httpx.Response) -> str | None:
    """What is wrong with a refusal."""
    if not 400 <= answer.status_code < 500:
        return f"status {answer.status_code}"
    if not answer.headers.get("x-request-id"):
        return "no x-request-id"
    try:
        document = answer.json()
    except ValueError:
        return f"no JSON: {answer.text[:80]!r}"
    error = document.get("error")
    if not isinstance(error, dict) or set(error) != {"message", "type", "code", "param"}:
        return f"no envelope: {answer.text[:80]!r}"
    if not (
        isinstance(error["message"], str) and error["message"] and isinstance(error["type"], str)
    ):
        return f"no message or type: {answer.text[:80]!r}"
    return None if "detail" in document else "no detail"


def memory_mib(pids: list[int]) -> list[float]:
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
    return [page * 4096 / (1 << 20) for page in pages]


def test_every_wrong_request_is_refused_at_once_and_leaves_nothing(gateway: StartedGateway) -> None:
    ready = gateway.ready
    books, pids = Books(ready), ready.pids["api"]
    since, before = books.mark(), memory_mib(pids)
    wrong, count, slowest = [], 0, 0.0
    with httpx.Client(base_url=ready.base_url, timeout=30) as client:
        for case in cases():
            answer, seconds = ask(client, case, ready.api_key)
            if seconds > ANSWER_SECONDS:  # a pause of the machine does not come twice
                answer, seconds = ask(client, case, ready.api_key)
            count, slowest = count + 1, max(slowest, seconds)
            problem = fault(answer)
            if problem or seconds > ANSWER_SECONDS:
                wrong.append(f"{case.name}: {problem or ''} in {seconds:.2f} s")
    grown = [after - was for after, was in zip(memory_mib(pids), before, strict=True)]
    print(f"\n{count} requests, slowest {slowest * 1000:.0f} ms, grown MiB {grown}")
    assert wrong == []
    assert count >= LEAST
    assert books.calls(since) == []
    assert unrest(ready) == {}
    assert ready.pids["api"] == gateway.ready.pids["api"], "a process died"
    assert max(grown) < GROWTH_MIB

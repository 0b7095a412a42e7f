"""The outermost layer, called as the server would call it."""

import asyncio
import re
import uuid
from typing import Any

import pytest
from structlog.testing import capture_logs

from api import middleware
from api.access_log import AccessLog
from api.body import Bodies, ClientLeft, read_body
from api.drain import Drain
from api.middleware import Edge, client_request_id_of, request_id_of
from api.problems import send_error
from shared.catalog import Catalog
from shared.document import Document, Limits
from shared.errors import NotFound
from shared.metrics import Metrics

HOT = "/v1/chat/completions"
LIMIT = 1000
IDS = ("x-request-id", "otari-request-id", "x-otari-request-id")


class Watch:
    current = Catalog(Document(limits=Limits(max_body_bytes=LIMIT)))


class Answer:
    """What came out, as a client would read it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.names: list[str] = []
        self.body = b""

    async def send(self, message):
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.names = [name.decode() for name, _ in message["headers"]]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.body += message.get("body", b"")


async def ok(scope, receive, send):
    scope["route"] = type("Route", (), {"path": "/v1/things/{id}"})
    await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
    await send({"type": "http.response.body", "body": b"ok"})


class World:
    def __init__(self, app=ok, hot=None, access_log=None) -> None:
        self.metrics, self.drain = Metrics(), Drain()
        self.scope: dict[str, Any] = {}
        self.edge = Edge(
            app,
            hot={HOT: hot} if hot else {},
            catalog=Watch(),
            metrics=self.metrics,
            drain=self.drain,
            access_log=access_log,
        )

    async def ask(self, path="/v1/things/5", *, method="GET", headers=(), parts=(b"",)) -> Answer:
        answer, waiting = Answer(), list(parts)

        async def receive():
            if not waiting:
                return {"type": "http.disconnect"}
            part = waiting.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}

        self.scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        await self.edge(self.scope, receive, answer.send)
        return answer

    def counted(self, route, method, status) -> float:
        return float(self.metrics.requests.labels(route, method, status).value)


async def test_every_answer_carries_one_request_id_under_every_name():
    world = World()
    answer = await world.ask()
    shown = {answer.headers[name] for name in IDS}
    assert len(shown) == 1
    assert uuid.UUID(shown.copy().pop()).version == 7
    assert shown == {str(uuid.UUID(request_id_of(world.scope)))}
    assert answer.headers["a"] == "b"
    assert answer.headers["x-correlation-id"] in shown
    assert (await world.ask()).headers["x-request-id"] not in shown


async def test_the_clients_own_id_is_kept_apart():
    world = World()
    for sent, kept in [
        (b"mine-1", "mine-1"),
        (b"x" * 500, "x" * 128),
        (b"", None),
        (b"a\x07b", None),
        ("é".encode(), None),
    ]:
        answer = await world.ask(headers=[(b"x-request-id", sent)])
        assert client_request_id_of(world.scope) == kept
        assert answer.headers["x-request-id"] != kept
    await world.ask()
    assert client_request_id_of(world.scope) is None


async def test_answers_are_not_stored_by_anybody_except_those_of_health():
    world = World()
    answer = await world.ask()
    assert answer.headers["cache-control"] == "private, no-store, no-cache"
    assert answer.headers["vary"] == "Authorization"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    for path in ("/health", "/health/readiness", "/api/v1/health"):
        answer = await world.ask(path)
        assert "cache-control" not in answer.headers
        assert answer.headers["x-frame-options"] == "DENY"
        assert "x-request-id" in answer.headers


async def test_what_a_route_says_of_caching_stays_and_vary_is_merged():
    async def stream(scope, receive, send):
        headers = [(b"cache-control", b"no-cache"), (b"vary", b"Origin, Accept")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    answer = await World(stream).ask()
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["vary"] == "Accept, Authorization, Origin"
    assert answer.names.count("vary") == answer.names.count("cache-control") == 1


async def test_requests_are_counted_by_template_never_by_path():
    world = World()
    for number in range(3):
        await world.ask(f"/v1/things/{number}")
    assert world.counted("/v1/things/{id}", "GET", 200) == 3
    await world.ask("/v1/things/1", method="BREW")
    assert world.counted("/v1/things/{id}", "OTHER", 200) == 1


async def test_an_alias_counts_under_the_one_name():
    async def alias(scope, receive, send):
        scope["route"] = type("Route", (), {"path": scope["path"]})
        await send_error(send, NotFound("x").body())

    world = World(alias)
    await world.ask("/api/v1/models")
    await world.ask("/api/v1/health")
    assert world.counted("/v1/models", "GET", 404) == 1
    assert world.counted("/health", "GET", 404) == 1


async def test_an_unmatched_path_is_one_label():
    async def nothing(scope, receive, send):
        await send_error(send, NotFound("x").body())

    world = World(nothing)
    for path in ("/a", "/b", "/v1/c"):
        await world.ask(path)
    assert world.counted("unmatched", "GET", 404) == 3


async def test_a_hot_path_is_answered_without_the_framework_for_post_alone():
    async def hot(scope, receive, send):
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"hot"})

    world = World(hot=hot)
    assert (await world.ask(HOT, method="POST")).body == b"hot"
    assert (await world.ask(HOT, method="GET")).body == b"ok"
    assert world.counted(HOT, "POST", 201) == 1


async def test_a_bug_is_a_500_with_the_request_id_in_the_log():
    async def broken(scope, receive, send):
        raise RuntimeError("boom")

    world = World(broken)
    with capture_logs() as logs:
        answer = await world.ask()
    assert answer.status == 500
    assert b"boom" not in answer.body
    assert logs[0]["request_id"] == request_id_of(world.scope)
    assert world.counted("unmatched", "GET", 500) == 1


async def test_an_error_of_ours_that_nobody_caught_is_its_envelope():
    async def refused(scope, receive, send):
        raise NotFound("no such thing")

    answer = await World(refused).ask()
    assert answer.status == 404
    assert b"no such thing" in answer.body


async def test_after_the_head_nothing_more_is_sent_when_a_route_breaks():
    async def half(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    with capture_logs() as logs:
        answer = await World(half).ask()
    assert answer.body == b"half"
    assert [line["action"] for line in logs] == ["request_broken"]


async def test_a_client_that_leaves_is_no_error():
    async def reading(scope, receive, send):
        await read_body(receive)

    world = World(reading)
    with capture_logs() as logs:
        await world.ask(parts=())
    assert logs == []
    assert world.counted("unmatched", "GET", 499) == 1


async def test_a_body_declared_too_large_is_refused_before_it_is_read():
    async def untouched(scope, receive, send):
        raise AssertionError("the route must not be asked")

    headers = [(b"content-length", str(LIMIT + 1).encode())]
    answer = await World(untouched).ask(headers=headers)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def reading_all(scope, receive, send):
    content = await read_body(receive)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(len(content)).encode()})


@pytest.mark.parametrize(("size", "status"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_a_body_in_chunks_is_counted_while_it_comes(size, status):
    parts = [b"x" * 100] * (size // 100) + [b"x" * (size % 100)]
    chunked = [(b"transfer-encoding", b"chunked")]
    answer = await World(reading_all).ask(headers=chunked, parts=parts)
    assert answer.status == status
    answer = await World(hot=reading_all).ask(HOT, method="POST", headers=chunked, parts=parts)
    assert answer.status == status


async def test_a_body_is_read_whole_from_its_parts():
    parts = [b"a", b"", b"bc"]

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    assert await read_body(receive) == b"abc"


async def test_a_body_that_breaks_off_is_a_client_that_left():
    messages = [
        {"type": "http.request", "body": b"half", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive():
        return messages.pop(0)

    with pytest.raises(ClientLeft):
        await read_body(receive)


async def test_a_process_that_begins_to_drain_still_serves_who_had_reached_it():
    world = World()
    world.drain.begin()
    answer = await world.ask()
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


async def test_a_draining_process_takes_nothing_new_but_answers_probes():
    world = World()
    world.drain.refuse()
    answer = await world.ask()
    assert answer.status == 503
    assert b'"code":"draining"' in answer.body
    assert answer.headers["connection"] == "close"
    assert answer.headers["retry-after"] == "1"
    for path in ("/health/readiness", "/status", "/metrics"):
        answer = await world.ask(path)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"


async def test_a_request_that_runs_when_the_drain_begins_ends_well_and_closes():
    go = asyncio.Event()

    async def slow(scope, receive, send):
        await go.wait()
        await ok(scope, receive, send)

    world = World(slow)
    asking = asyncio.ensure_future(world.ask())
    await asyncio.sleep(0)
    world.drain.begin()
    go.set()
    answer = await asking
    assert answer.status == 200
    assert answer.headers["connection"] == "close"


async def test_a_request_that_is_cancelled_by_the_drain_is_told_so():
    async def endless(scope, receive, send):
        await asyncio.Event().wait()

    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    world = World(endless)
    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asking = asyncio.ensure_future(world.edge(scope, receive, send))
    await asyncio.sleep(0)
    world.drain.begin()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert sent[0]["status"] == 503
    assert b'"code":"draining"' in sent[1]["body"]


@pytest.mark.parametrize(("share", "lines"), [(0.0, 0), (0.25, 25), (1.0, 100)])
async def test_the_access_log_samples(share, lines):
    access_log = AccessLog(share)
    world = World(access_log=access_log)
    for _ in range(100):
        await world.ask()
    with capture_logs() as logs:
        access_log.flush()
    assert len(logs) == lines
    for line in logs:
        assert line["route"] == "/v1/things/{id}"
        assert re.fullmatch(r"[0-9a-f]{32}", line["request_id"])


async def test_large_bodies_are_counted_together_until_they_are_answered(monkeypatch):
    monkeypatch.setattr(middleware, "COUNTED_ABOVE_BYTES", 10)
    world = World(reading_all)
    world.edge._bodies = Bodies(most=LIMIT)
    declared = [(b"content-length", str(LIMIT).encode())]
    reading = asyncio.Event()

    async def slow(scope, receive, send):
        await receive()
        reading.set()
        await asyncio.sleep(0.05)
        await ok(scope, receive, send)

    world.edge._app = slow
    first = asyncio.create_task(world.ask(headers=declared, parts=(b"x" * LIMIT,)))
    await reading.wait()
    refused = await world.ask(headers=declared, parts=(b"x" * LIMIT,))
    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert (await first).status == 200
    assert (await world.ask(headers=declared, parts=(b"x" * LIMIT,))).status == 200
    assert world.edge._bodies.held == 0


async def test_a_body_that_is_passed_on_is_bounded_but_not_counted(monkeypatch):
    monkeypatch.setattr(middleware, "COUNTED_ABOVE_BYTES", 10)
    world = World(hot=reading_all)
    world.edge._bodies = Bodies(most=LIMIT // 2)
    world.edge._uploads = frozenset({HOT})
    chunked = [(b"transfer-encoding", b"chunked")]
    parts = [b"x" * (LIMIT // 2), b"x" * (LIMIT // 2)]
    assert (await world.ask(path=HOT, method="POST", headers=chunked, parts=parts)).status == 200
    parts.append(b"x")
    assert (await world.ask(path=HOT, method="POST", headers=chunked, parts=parts)).status == 413
    assert world.edge._bodies.held == 0

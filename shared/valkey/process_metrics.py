"""What every process measures, gathered in Valkey, so that one scrape shows the whole deployment.

A process writes its samples under its own key, with a TTL: what is gone stops being reported by
itself. It renews its entry in the register of processes on the same round. Whoever is scraped merges
all of them, each sample labelled with its role and process, and adds the stores' own gauges.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from redis.asyncio import Redis
from redis.exceptions import RedisError
from typing_extensions import override

from shared.clock import Clock
from shared.metrics import Metrics
from shared.valkey.inspect import ShardView, live_processes, view_shard
from shared.valkey.keys import ShardKeys
from shared.valkey.processes import RENEW_SECONDS, own_entry

PUBLISH_SECONDS = 2.0
KEPT_SECONDS = 15
"""A process that misses a few rounds is still shown; one that is gone, not for long."""
ANSWER_SECONDS = 2.0
"""Per wait for the server: metrics are late rather than in the way."""
SCRAPE_SECONDS = 5.0
"""The whole of a scrape; Prometheus gives up after 10 s by default."""
STORE_ERRORS = (RedisError, OSError)

log = structlog.get_logger()


class Sample(msgspec.Struct, frozen=True, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric with its samples, as the client library names them."""

    name: str
    kind: str
    sentence: str
    samples: list[Sample]


class Published(msgspec.Struct, frozen=True):
    """What one process measures; later fields are optional."""

    role: str
    process: str
    families: list[Family]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Published).decode


class ProcessMetrics:
    """One process's side of it, and the merged view. Keep `run()` running; `close()` at the end."""

    def __init__(
        self, *, url: str, role: str, process: str, metrics: Metrics, shards: int, clock: Clock
    ) -> None:
        self._store = Redis.from_url(
            url,
            client_name=f"{role}-metrics-{process[-8:]}",
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
        )
        self._role = role
        self._process = process
        self._metrics = metrics
        self._shards = [ShardKeys(number) for number in range(shards)]
        self._clock = clock
        self._started_at = clock.now()
        self._complained = False

    async def run(self) -> None:
        """Publishes until cancelled. A server that is away costs one log line, not the process."""
        published_at = float("-inf")
        while True:
            now = self._clock.monotonic()
            due = now - published_at >= PUBLISH_SECONDS
            if await self._tell(metrics_too=due) and due:
                published_at = now
            _heed_cancellation()
            await asyncio.sleep(RENEW_SECONDS)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publishes for the length of the block, then closes."""
        try:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(self.run())
                yield
                running.cancel()
        finally:
            await self.close()

    async def _tell(self, *, metrics_too: bool) -> bool:
        try:
            async with asyncio.timeout(ANSWER_SECONDS * 2):
                await self.renew()
                if metrics_too:
                    await self.publish()
        except STORE_ERRORS as error:
            self._complain(error)
            return False
        self._complained = False
        return True

    async def renew(self) -> None:
        """Raises one of STORE_ERRORS, as `publish` does."""
        entry = own_entry(self._role, started_at=self._started_at, now=self._clock.now())
        await self._store.execute_command(
            "HSET", ShardKeys(0).processes, self._process, entry.encode()
        )

    async def publish(self) -> None:
        value = _encode(self._own())
        await self._store.set(ShardKeys(0).metrics(self._process), value, ex=KEPT_SECONDS)

    async def is_up(self) -> bool:
        """Whether Valkey answers. Give it a deadline."""
        try:
            await self._store.execute_command("PING")
        except STORE_ERRORS:
            return False
        return True

    async def collect(self) -> bytes:
        """The whole deployment's metrics as Prometheus text (version 0.0.4).

        With Valkey away, this process's own: a scrape during an outage is worth the most.
        """
        everyone, views = [self._own()], list[ShardView]()
        try:
            async with asyncio.timeout(SCRAPE_SECONDS):
                everyone += await self._others()
                views = [await view_shard(self._store, keys) for keys in self._shards]
        except STORE_ERRORS as error:
            self._complain(error)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Merged([*_merge(everyone), *_gauges(views)]))
        return generate_latest(registry)

    async def close(self) -> None:
        """Takes this process out of the register: it has left, it is not silent."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._store.execute_command("HDEL", ShardKeys(0).processes, self._process)
                await self._store.delete(ShardKeys(0).metrics(self._process))
        except STORE_ERRORS as error:
            self._complain(error)
        finally:
            await self._store.aclose()

    def _own(self) -> Published:
        families = [_family(metric) for metric in self._metrics.registry.collect()]
        # The stores' gauges are sampled by the scrape: a copy here would be old, and doubled.
        families = [family for family in families if family.name not in STORE_GAUGES]
        return Published(role=self._role, process=self._process, families=families)

    async def _others(self) -> list[Published]:
        names = [name for name in await live_processes(self._store) if name != self._process]
        if not names:
            return []
        values = await self._store.mget([ShardKeys(0).metrics(name) for name in sorted(names)])
        return [_decode(value) for value in values if value is not None]

    def _complain(self, error: Exception) -> None:
        if not self._complained:
            self._complained = True
            log.warning(
                "Metrics cannot be exchanged", action="metrics_away", error=type(error).__name__
            )


class _Merged(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._merged = metrics

    @override
    def collect(self) -> Iterable[Metric]:
        return self._merged


def _family(metric: Metric) -> Family:
    samples = [
        Sample(sample.name, dict(sample.labels), float(sample.value))
        for sample in metric.samples
        # When a counter was made: a second line for every sample, and of use to nobody here.
        if not sample.name.endswith("_created")
    ]
    return Family(metric.name, metric.type, metric.documentation, samples)


def _merge(everyone: Sequence[Published]) -> list[Metric]:
    """Families by name, each once, as the text format wants them."""
    merged: dict[str, Metric] = {}
    for published in everyone:
        own = {"role": published.role, "process": published.process}
        for family in published.families:
            metric = merged.get(family.name)
            if metric is None:
                metric = merged[family.name] = Metric(family.name, family.sentence, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, {**sample.labels, **own}, sample.value)
    return list(merged.values())


STORE_GAUGES = frozenset(
    {
        "gateway_lane_depth",
        "gateway_lane_oldest_seconds",
        "gateway_spend_backlog",
        "gateway_receipt_backlog",
        "gateway_sealed_bytes",
    }
)


def _gauges(views: Sequence[ShardView]) -> list[Metric]:
    """The stores' own state, in the names and sentences of `shared.metrics`."""
    if not views:
        return []
    metrics = Metrics()
    for view in views:
        shard = str(view.shard)
        metrics.spend_backlog.labels(shard).set(view.spend_backlog)
        metrics.receipt_backlog.labels(shard).set(view.receipt_backlog)
        metrics.sealed_bytes.labels(shard).set(view.sealed_bytes)
        for lane in view.lanes:
            ages = [age for age in (lane.oldest_waiting, lane.oldest_running) if age is not None]
            metrics.lane_depth.labels(shard, lane.lane).set(lane.waiting + lane.running)
            metrics.lane_oldest_seconds.labels(shard, lane.lane).set(max(ages, default=0.0))
    return [metric for metric in metrics.registry.collect() if metric.name in STORE_GAUGES]


def _heed_cancellation() -> None:
    """redis-py answers a cancellation while it connects with an error of its own, and the
    cancellation is lost: its task would run on, and the process never end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError

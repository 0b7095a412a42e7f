"""Counters, gauges and histograms as plain numbers, shown to a Prometheus registry when it collects.

Names, samples and text are the library's; its own metric objects lock and check at every count,
which made them a twentieth of a request. These count on one thread, the event loop's.
"""

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override

INFINITY = float("inf")


class Number:
    """What one combination of labels has come to."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount

    def dec(self, amount: float = 1.0) -> None:
        self.value -= amount

    def set(self, value: float) -> None:
        self.value = value


class Spread:
    """How the observations of one combination of labels are spread over the buckets."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


Child = TypeVar("Child", Number, Spread)


class Family(Collector, Generic[Child]):
    """One metric with all its combinations of labels. Label values must be bounded by the caller."""

    kind: str
    _shown_unset = True
    """Without labels it is there from the start."""

    def __init__(
        self, name: str, sentence: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        self.name = name
        self.sentence = sentence
        self.label_names = tuple(labels)
        self._children: dict[tuple[object, ...], Child] = {}
        registry.register(self)

    def labels(self, *values: object) -> Child:
        """The child of these values, in the order of the label names. Raises ValueError."""
        child = self._children.get(values)
        if child is None:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}")
            child = self._children[values] = self._child()
        return child

    @abstractmethod
    def _child(self) -> Child:
        """One that has counted nothing yet."""

    @abstractmethod
    def _samples(self, child: Child) -> Iterable[tuple[str, dict[str, str], float]]:
        """Ending of the sample's name, further labels, value."""

    def describe(self) -> Iterable[Metric]:
        return [Metric(self.name, self.sentence, self.kind)]

    @override
    def collect(self) -> Iterable[Metric]:
        metric = Metric(self.name, self.sentence, self.kind)
        if not self.label_names and self._shown_unset:
            self.labels()
        for values, child in self._children.items():
            own = dict(zip(self.label_names, map(str, values), strict=True))
            for ending, further, value in self._samples(child):
                metric.add_sample(self.name + ending, {**own, **further}, value)
        return [metric]


class Counter(Family[Number]):
    """Only grows. Its samples end in `_total`, whatever its name ends in."""

    kind = "counter"

    def __init__(
        self, name: str, sentence: str, labels: Sequence[str] = (), *, registry: CollectorRegistry
    ) -> None:
        super().__init__(name.removesuffix("_total"), sentence, labels, registry=registry)

    @override
    def _child(self) -> Number:
        return Number()

    @override
    def _samples(self, child: Number) -> Iterable[tuple[str, dict[str, str], float]]:
        return [("_total", {}, child.value)]

    def inc(self, amount: float = 1.0) -> None:
        self.labels().inc(amount)


class Gauge(Family[Number]):
    """Goes up and down. `of_one_role`: shown by processes that have set it, for others know nothing."""

    kind = "gauge"

    def __init__(
        self, name: str, sentence: str, labels: Sequence[str] = (), *,
        of_one_role: bool = False, registry: CollectorRegistry,
    ) -> None:  # fmt: skip
        self._shown_unset = not of_one_role
        super().__init__(name, sentence, labels, registry=registry)

    @override
    def _child(self) -> Number:
        return Number()

    @override
    def _samples(self, child: Number) -> Iterable[tuple[str, dict[str, str], float]]:
        return [("", {}, child.value)]

    def inc(self, amount: float = 1.0) -> None:
        self.labels().inc(amount)

    def dec(self, amount: float = 1.0) -> None:
        self.labels().dec(amount)

    def set(self, value: float) -> None:
        self.labels().set(value)


class Histogram(Family[Spread]):
    """Counts observations by upper bound, the bound itself included."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        sentence: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._bounds = tuple(map(float, buckets))
        super().__init__(name, sentence, labels, registry=registry)

    @override
    def _child(self) -> Spread:
        return Spread(self._bounds)

    @override
    def _samples(self, child: Spread) -> Iterator[tuple[str, dict[str, str], float]]:
        counts = list(accumulate(child.counts))
        for bound, count in zip((*self._bounds, INFINITY), counts, strict=True):
            yield "_bucket", {"le": "+Inf" if bound == INFINITY else str(bound)}, count
        yield "_count", {}, counts[-1]
        yield "_sum", {}, child.total

    def observe(self, value: float) -> None:
        self.labels().observe(value)

"""The metrics of jobs and attempts, with each label looked up once per combination.

A lookup by labels costs more than the measurement itself; on the way of every job it would be a
sixth of the worker's own work.
"""

from functools import cache
from typing import Any

from shared.metrics import Metrics
from shared.spend import SpendRow


class Meter:
    """One per process. Label values are bounded, and so is what is remembered."""

    def __init__(self, metrics: Metrics) -> None:
        self._child = cache(_child)
        self._metrics = metrics

    def claimed(self, lane: str, queue_seconds: float) -> None:
        self._child(self._metrics.queue_seconds, lane).observe(queue_seconds)

    def ended(self, outcome: str) -> None:
        self._child(self._metrics.jobs, outcome).inc()

    def attempted(
        self, row: SpendRow, *, model: str, upstream_seconds: float, ttft: float | None
    ) -> None:
        metrics, child = self._metrics, self._child
        child(metrics.attempts, row.provider, row.status).inc()
        child(metrics.upstream_seconds, row.provider).observe(upstream_seconds)
        if ttft is not None and row.streamed:
            child(metrics.ttft_seconds, row.provider).observe(ttft)
        usage = row.usage
        if usage.input_tokens:
            child(metrics.tokens, model, "input").inc(usage.input_tokens)
        if usage.output_tokens:
            child(metrics.tokens, model, "output").inc(usage.output_tokens)


def _child(metric: Any, *labels: str) -> Any:
    return metric.labels(*labels)

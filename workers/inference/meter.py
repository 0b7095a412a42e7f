"""The metrics of jobs and attempts."""

from shared.metrics import Metrics
from shared.spend import SpendRow


class Meter:
    """One per process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def claimed(self, lane: str, queue_seconds: float) -> None:
        self._metrics.queue_seconds.labels(lane).observe(queue_seconds)

    def ended(self, outcome: str) -> None:
        self._metrics.jobs.labels(outcome).inc()

    def overran(self) -> None:
        """A job cost more than it held."""
        self._metrics.hold_overruns.inc()

    def looked_up(self, outcome: str) -> None:
        self._metrics.cache_lookups.labels(outcome).inc()

    def put(self, outcome: str) -> None:
        self._metrics.cache_puts.labels(outcome).inc()

    def chosen(self, outcome: str) -> None:
        self._metrics.choices.labels(outcome).inc()

    def attempted(
        self, row: SpendRow, *, model: str, upstream_seconds: float, ttft: float | None
    ) -> None:
        metrics = self._metrics
        metrics.attempts.labels(row.provider, row.status).inc()
        metrics.upstream_seconds.labels(row.provider).observe(upstream_seconds)
        if ttft is not None and row.streamed:
            metrics.ttft_seconds.labels(row.provider).observe(ttft)
        usage = row.usage
        if usage.input_tokens:
            metrics.tokens.labels(model, "input").inc(usage.input_tokens)
        if usage.output_tokens:
            metrics.tokens.labels(model, "output").inc(usage.output_tokens)

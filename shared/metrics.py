"""Every metric: its name, type, labels and sentence, on a registry that is handed in.

docs/metrics.md lists the same names; a test compares the two. Label values are bounded: models and
providers come from the catalog, codes and statuses from our own tables.
"""

from prometheus_client import CollectorRegistry

from shared.tally import Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Built once per process by its entry point."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        r = self.registry
        # api
        self.requests = Counter(
            "gateway_requests_total",
            "Requests answered, by route template and status.",
            ["route", "method", "status"],
            registry=r,
        )
        self.request_seconds = Histogram(
            "gateway_request_seconds",
            "From the request's head to the end of its answer.",
            ["route"],
            buckets=SECONDS,
            registry=r,
        )
        self.admissions = Counter(
            "gateway_admissions_total",
            "Admission decisions, by lane and outcome.",
            ["lane", "outcome"],
            registry=r,
        )
        self.rate_limit_hits = Counter(
            "gateway_rate_limit_hits_total", "Requests a limit refused.", registry=r
        )
        self.budget_exceeded = Counter(
            "gateway_budget_exceeded_total", "Requests a spent budget refused.", registry=r
        )
        self.open_requests = Gauge(
            "gateway_open_requests", "Requests waiting for or receiving replies.", registry=r
        )
        self.client_disconnects = Counter(
            "gateway_client_disconnects_total",
            "Clients that left before their answer ended.",
            registry=r,
        )
        self.streams_cut = Counter(
            "gateway_streams_cut_total",
            "Streams that ended without [DONE], by reason.",
            ["reason"],
            registry=r,
        )
        self.deprecated_models = Counter(
            "gateway_deprecated_model_names_total",
            "Requests that named a model without the prefix it should have.",
            ["endpoint"],
            registry=r,
        )
        # worker
        self.jobs = Counter(
            "gateway_jobs_total", "Jobs ended by this worker, by outcome.", ["outcome"], registry=r
        )
        self.jobs_running = Gauge(
            "gateway_jobs_running", "Jobs this worker is running.", registry=r
        )
        self.queue_seconds = Histogram(
            "gateway_queue_seconds",
            "From admission to claim.",
            ["lane"],
            buckets=SECONDS,
            registry=r,
        )
        self.attempts = Counter(
            "gateway_upstream_attempts_total",
            "Calls to providers, by how they ended.",
            ["provider", "status"],
            registry=r,
        )
        self.upstream_seconds = Histogram(
            "gateway_upstream_seconds",
            "From the send of an upstream call to its end.",
            ["provider"],
            buckets=SECONDS,
            registry=r,
        )
        self.ttft_seconds = Histogram(
            "gateway_time_to_first_token_seconds",
            "From the send of an upstream call to its first content.",
            ["provider"],
            buckets=SECONDS,
            registry=r,
        )
        self.tokens = Counter(
            "gateway_tokens_total",
            "Tokens metered, by model and kind.",
            ["model", "kind"],
            registry=r,
        )
        self.choices = Counter(
            "gateway_best_of_n_choices_total",
            "Answers chosen among candidates: by an evaluator, or the first for want of its word.",
            ["outcome"],
            registry=r,
        )
        self.hold_overruns = Counter(
            "gateway_hold_overruns_total", "Jobs that cost more than they held.", registry=r
        )
        self.leases_lost = Counter(
            "gateway_leases_lost_total", "Jobs another worker took over from this one.", registry=r
        )
        self.jobs_reclaimed = Counter(
            "gateway_jobs_reclaimed_total",
            "Jobs taken over from a silent worker, by what became of them.",
            ["outcome"],
            registry=r,
        )
        self.jobs_buried = Counter(
            "gateway_jobs_buried_total", "Jobs given up after too many deliveries.", registry=r
        )
        self.cache_lookups = Counter(
            "gateway_cache_lookups_total",
            "Lookups in the cache, one per route, by outcome: hit, miss, stale, error.",
            ["outcome"],
            registry=r,
        )
        self.cache_puts = Counter(
            "gateway_cache_puts_total",
            "Answers offered to the cache, by outcome: stored, too_large, refused.",
            ["outcome"],
            registry=r,
        )
        self.breaker_open = Gauge(
            "gateway_breaker_open", "1 while a provider is left alone.", ["provider"], registry=r
        )
        # metering
        self.spend_rows = Counter(
            "gateway_spend_rows_total", "Spend rows inserted into ClickHouse.", registry=r
        )
        self.spend_batches = Counter(
            "gateway_spend_batches_total",
            "Batches of spend rows, by outcome.",
            ["outcome"],
            registry=r,
        )
        self.spend_quarantined = Counter(
            "gateway_spend_quarantined_total", "Spend rows set aside as unreadable.", registry=r
        )
        self.spend_insert_seconds = Histogram(
            "gateway_spend_insert_seconds",
            "Time to insert one batch.",
            buckets=SECONDS,
            registry=r,
        )
        # background
        self.usage_lag = Gauge(
            "gateway_usage_rollup_lag_seconds",
            "Age of the last whole round of hourly sums of usage, told by background processes.",
            registry=r,
        )
        self.usage_hours = Counter(
            "gateway_usage_rollup_hours_total",
            "Hours of usage whose sums were computed, most of them again.",
            registry=r,
        )
        self.budget_events = Counter(
            "gateway_budget_events_total",
            "Resets of budgets and soft limits passed, dealt with, by kind.",
            ["kind"],
            registry=r,
        )
        self.webhooks = Counter(
            "gateway_webhooks_total",
            "Webhooks, by outcome: delivered, failed, refused.",
            ["outcome"],
            registry=r,
        )
        self.receipts = Counter(
            "gateway_receipts_total",
            "Receipts settled, by label and reason.",
            ["label", "reason"],
            registry=r,
        )
        self.receipt_seconds = Histogram(
            "gateway_receipt_seconds",
            "From the end of a call to its settled receipt.",
            buckets=SECONDS,
            registry=r,
        )
        self.receipts_under_way = Gauge(
            "gateway_receipts_under_way",
            "Receipts this process is making.",
            of_one_role=True,
            registry=r,
        )
        self.attestation_sessions = Counter(
            "gateway_attestation_sessions_total",
            "Attestation sessions made, by provider and label.",
            ["provider", "label"],
            registry=r,
        )
        self.attestation_alarms = Counter(
            "gateway_attestation_alarms_total",
            "What an operator should look at: a new signer, compose hash or TCB status, a synthetic "
            "root, a session that failed, services that are away.",
            ["kind"],
            registry=r,
        )
        self.log_size = Gauge(
            "gateway_transparency_log_size",
            "Receipts in the transparency log, told by background processes.",
            of_one_role=True,
            registry=r,
        )
        # stores, sampled by whoever answers /metrics
        self.lane_depth = Gauge(
            "gateway_lane_depth", "Jobs waiting or running, by lane.", ["shard", "lane"], registry=r
        )
        self.lane_oldest_seconds = Gauge(
            "gateway_lane_oldest_seconds",
            "Age of the oldest job that has not ended.",
            ["shard", "lane"],
            registry=r,
        )
        self.spend_backlog = Gauge(
            "gateway_spend_backlog", "Spend rows waiting for ClickHouse.", ["shard"], registry=r
        )
        self.receipt_backlog = Gauge(
            "gateway_receipt_backlog",
            "Entries of transcripts whose receipts are not made yet.",
            ["shard"],
            registry=r,
        )
        self.sealed_bytes = Gauge(
            "gateway_sealed_bytes",
            "Sealed bytes of jobs that have not ended.",
            ["shard"],
            registry=r,
        )
        self.store_reconnects = Counter(
            "gateway_store_reconnects_total",
            "Connections made again, by store.",
            ["store"],
            registry=r,
        )
        self.housekeeping = Counter(
            "gateway_housekeeping_total",
            "Things the background process cleaned up, by kind.",
            ["kind"],
            registry=r,
        )

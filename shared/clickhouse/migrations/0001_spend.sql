-- Spend rows, one per upstream attempt.
--
-- Repeats of a row (a metering process died between insert and acknowledgement) fold into one:
-- ReplacingMergeTree keeps one row per ORDER BY value inside a partition, so the partition and the
-- order may hold only what is identical in every repeat. The hour comes before row_id because UUIDs
-- are ordered by their random half: it keeps a tenant's rows of one hour side by side, which is what
-- pages and rollups read. Ids are UUIDs: 16 bytes instead of 32, and printed as clients see them.
--
-- Empty text stands for "none": a Nullable column would double each of these for no reader's sake.
CREATE TABLE IF NOT EXISTS spend_rows
(
    row_id UUID,
    request_id UUID,
    tenant LowCardinality(String),
    user String,
    key_id String,
    episode_id String,
    client_request_id String,
    endpoint LowCardinality(String),
    model LowCardinality(String),
    provider LowCardinality(String),
    variant LowCardinality(String),
    upstream_model LowCardinality(String),
    tier LowCardinality(String),
    lane LowCardinality(String),
    config_hash LowCardinality(String),
    attempt UInt32,
    streamed Bool,
    status LowCardinality(String),
    error_code LowCardinality(String),
    finish_reason LowCardinality(String),
    billed Bool,
    input_tokens UInt64,
    output_tokens UInt64,
    cached_input_tokens UInt64,
    reasoning_tokens UInt64,
    audio_input_tokens UInt64,
    audio_output_tokens UInt64,
    usage_source LowCardinality(String),
    -- US dollars per million tokens; no price of its own for cached input: that of the input.
    price_input Decimal(18, 12),
    price_output Decimal(18, 12),
    price_cached_input Nullable(Decimal(18, 12)),
    cost_usd Decimal(38, 9),
    tags Map(String, String),
    created_at DateTime64(6, 'UTC'),
    started_at DateTime64(6, 'UTC'),
    ended_at DateTime64(6, 'UTC'),
    ttft_ms Nullable(Float64),
    queue_ms Float64,
    upstream_ms Float64,
    overhead_ms Float64,
    -- Not of the row: tells which hours have news, for whoever recomputes sums of them.
    inserted_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    INDEX by_request request_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(created_at)
ORDER BY (tenant, toStartOfHour(created_at), row_id)
-- Remembers the tokens of the last inserts, so that most repeats are not even stored.
SETTINGS non_replicated_deduplication_window = 1000;

-- What everybody reads: folded rows. Only the sink writes, and only to spend_rows.
CREATE VIEW IF NOT EXISTS spend AS SELECT * FROM spend_rows FINAL;

-- The Scanner's list: of each request the attempt that counts, with what is shown of it.
--
-- The order is that of the list, so a page is read from its end, and an attempt that outranks another
-- of its request replaces it. Until parts are merged both are here: readers compare their ranks. A
-- rank is as in `usage.Attempt.rank`: whether it answered (a bit), its number (12 bits), when it began
-- (microseconds since 2020, which fit for 71 years). `is_final`: no other attempt of its request can
-- outrank it; of functions, any may. Small granules, because rare requests are single lines in them.
-- Every column costs each insert of rows.
CREATE TABLE IF NOT EXISTS scanner_requests
(
    created_at DateTime64(6, 'UTC') CODEC(Delta(8), LZ4),
    request_id UUID CODEC(NONE),
    row_rank UInt64,
    is_final Bool,
    owner_hash UInt64 CODEC(NONE),
    model LowCardinality(String),
    creator LowCardinality(String),
    application LowCardinality(String),
    status LowCardinality(String),
    provider LowCardinality(String),
    tier LowCardinality(String),
    endpoint LowCardinality(String),
    streamed Bool,
    cached Bool,
    is_priced Bool,
    input_tokens UInt64,
    output_tokens UInt64,
    cost_usd Decimal(18, 9),
    latency_ms Float32,
    ttft_ms Nullable(Float32)
)
ENGINE = ReplacingMergeTree(row_rank)
PARTITION BY toYYYYMM(created_at)
ORDER BY (created_at, request_id)
SETTINGS index_granularity = 1024;

CREATE MATERIALIZED VIEW IF NOT EXISTS scanner_feed TO scanner_requests AS
SELECT
    created_at,
    request_id,
    bitOr(
        bitShiftLeft(toUInt64(billed OR status = 'completed'), 63),
        bitOr(
            bitShiftLeft(toUInt64(least(attempt, 4095)), 51),
            toUInt64(greatest(toUnixTimestamp64Micro(started_at) - 1577836800000000, 0))
        )
    ) AS row_rank,
    (billed OR cached) AND variant = '' AS is_final,
    cityHash64(tenant, user) AS owner_hash,
    model,
    extract(upstream_model, '^([^/]*)/') AS creator,
    tags['application'] AS application,
    if(status = 'lost', 'failed', status) AS status,
    provider,
    tier,
    endpoint,
    streamed,
    cached,
    price_input + price_output > 0 OR price_details != '' AS is_priced,
    input_tokens,
    output_tokens,
    cost_usd,
    (toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(created_at)) / 1000 AS latency_ms,
    ttft_ms
FROM spend_rows;

-- What was there before the view: of a month, so that an upgrade does not wait for years of rows.
-- May be repeated, because the same lines fold.
INSERT INTO scanner_requests
SELECT
    created_at,
    request_id,
    bitOr(
        bitShiftLeft(toUInt64(billed OR status = 'completed'), 63),
        bitOr(
            bitShiftLeft(toUInt64(least(attempt, 4095)), 51),
            toUInt64(greatest(toUnixTimestamp64Micro(started_at) - 1577836800000000, 0))
        )
    ) AS row_rank,
    (billed OR cached) AND variant = '' AS is_final,
    cityHash64(tenant, user) AS owner_hash,
    model,
    extract(upstream_model, '^([^/]*)/') AS creator,
    tags['application'] AS application,
    if(status = 'lost', 'failed', status) AS status,
    provider,
    tier,
    endpoint,
    streamed,
    cached,
    price_input + price_output > 0 OR price_details != '' AS is_priced,
    input_tokens,
    output_tokens,
    cost_usd,
    (toUnixTimestamp64Micro(ended_at) - toUnixTimestamp64Micro(created_at)) / 1000 AS latency_ms,
    ttft_ms
FROM spend_rows
WHERE created_at >= now() - toIntervalDay(31);

-- Sums of the requests of a minute, an hour or a day (`grain`), kept as `usage_hourly` is: an hour is
-- computed again whole, with its minutes, whenever it has news, and its day from its hours. Minutes
-- have no quantiles; of days, which are by model alone, nothing but these is read.
CREATE TABLE IF NOT EXISTS scanner_sums
(
    grain LowCardinality(String),
    at DateTime('UTC'),
    model LowCardinality(String),
    creator LowCardinality(String),
    provider LowCardinality(String),
    tier LowCardinality(String),
    requests UInt64,
    completed UInt64,
    cancelled UInt64,
    input_tokens UInt64,
    output_tokens UInt64,
    cached_input_tokens UInt64,
    reasoning_tokens UInt64,
    cost_usd Decimal(38, 9),
    latency_ms AggregateFunction(quantilesDD(0.01, 0.5, 0.95), Float64),
    ttft_ms AggregateFunction(quantilesDD(0.01, 0.5, 0.95), Float64),
    computed_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(at)
ORDER BY (grain, at, model, creator, provider, tier)
TTL at + toIntervalDay(3) DELETE WHERE grain = 'minute'
SETTINGS index_granularity = 1024;

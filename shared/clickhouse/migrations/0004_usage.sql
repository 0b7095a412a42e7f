-- What pages and sums of usage stand on.
--
-- Rows of one user are few among all: most granules can be left out. `inserted_at` follows the order
-- of the hours, so the hours with news are found without reading the whole column.
ALTER TABLE spend_rows
    ADD INDEX IF NOT EXISTS by_user user TYPE bloom_filter(0.01) GRANULARITY 1,
    ADD INDEX IF NOT EXISTS by_inserted inserted_at TYPE minmax GRANULARITY 1;

ALTER TABLE spend_rows MATERIALIZE INDEX IF EXISTS by_user;

ALTER TABLE spend_rows MATERIALIZE INDEX IF EXISTS by_inserted;

-- Sums of the requests of one hour, recomputed whole from folded rows whenever the hour has news:
-- the newest computation of a line is the right one. A line that a later computation does not have
-- any more is written again with zeros. Kept longer than the rows, so without a TTL.
CREATE TABLE IF NOT EXISTS usage_hourly
(
    tenant LowCardinality(String),
    hour DateTime('UTC'),
    user String,
    key_id String,
    model LowCardinality(String),
    provider LowCardinality(String),
    tier LowCardinality(String),
    endpoint LowCardinality(String),
    status LowCardinality(String),
    requests UInt64,
    attempts UInt64,
    input_tokens UInt64,
    output_tokens UInt64,
    cached_input_tokens UInt64,
    reasoning_tokens UInt64,
    cost_usd Decimal(38, 9),
    computed_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, user, key_id, model, provider, tier, endpoint, status);

-- The same sums by tag. A request with three tags is in three lines: these do not add up to a total.
CREATE TABLE IF NOT EXISTS usage_hourly_tags
(
    tenant LowCardinality(String),
    hour DateTime('UTC'),
    tag String,
    value String,
    status LowCardinality(String),
    requests UInt64,
    attempts UInt64,
    input_tokens UInt64,
    output_tokens UInt64,
    cached_input_tokens UInt64,
    reasoning_tokens UInt64,
    cost_usd Decimal(38, 9),
    computed_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(computed_at)
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, tag, hour, value, status);

-- Up to when every hour with news has been recomputed: one line, the newest.
CREATE TABLE IF NOT EXISTS usage_rolled_up
(
    place UInt8 DEFAULT 0,
    until DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree(until)
ORDER BY place;

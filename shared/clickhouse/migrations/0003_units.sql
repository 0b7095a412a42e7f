-- What is used beside tokens, the tier that served a call, and the prices of all that.
ALTER TABLE spend_rows
    ADD COLUMN IF NOT EXISTS cache_write_tokens UInt64 DEFAULT 0 AFTER audio_output_tokens,
    ADD COLUMN IF NOT EXISTS images UInt64 DEFAULT 0 AFTER cache_write_tokens,
    ADD COLUMN IF NOT EXISTS image_kind LowCardinality(String) DEFAULT '' AFTER images,
    ADD COLUMN IF NOT EXISTS seconds Decimal(18, 3) DEFAULT 0 AFTER image_kind,
    ADD COLUMN IF NOT EXISTS pages UInt64 DEFAULT 0 AFTER seconds,
    ADD COLUMN IF NOT EXISTS characters UInt64 DEFAULT 0 AFTER pages,
    ADD COLUMN IF NOT EXISTS tool_calls UInt64 DEFAULT 0 AFTER characters,
    -- JSON of the whole price, where it is more than the three columns before it.
    ADD COLUMN IF NOT EXISTS price_details String DEFAULT '' AFTER price_cached_input,
    ADD COLUMN IF NOT EXISTS service_tier LowCardinality(String) DEFAULT '' AFTER cached;

CREATE OR REPLACE VIEW spend AS SELECT * FROM spend_rows FINAL;

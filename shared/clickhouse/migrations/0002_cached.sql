-- Rows of answers that came from the cache: no call was made for them, and they cost nothing.
ALTER TABLE spend_rows ADD COLUMN IF NOT EXISTS cached Bool DEFAULT false AFTER overhead_ms;

-- A view keeps the columns of the moment it was made: it is made again, in one step.
CREATE OR REPLACE VIEW spend AS SELECT * FROM spend_rows FINAL;

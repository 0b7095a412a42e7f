#!lua flags=allow-oom
-- Removes an upload: its request has ended.
-- KEYS: 1 upload  2 uploads  3 sealed-bytes
-- ARGV: 1 request id
-- Returns 1 if there was one.
return drop_upload(KEYS[1], KEYS[2], KEYS[3], ARGV[1])

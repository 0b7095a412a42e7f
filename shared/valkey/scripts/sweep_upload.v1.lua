#!lua flags=allow-oom
-- Removes an upload whose job is gone, once it has been quiet: its job may not be admitted yet.
-- KEYS: 1 job  2 upload  3 uploads  4 sealed-bytes
-- ARGV: 1 request id  2 quiet for how long, in ms
-- Returns 1 if it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local _, _, moved = read_upload(KEYS[3], ARGV[1])
if now_ms() - moved < tonumber(ARGV[2]) then
  return 0
end
return drop_upload(KEYS[2], KEYS[3], KEYS[4], ARGV[1])

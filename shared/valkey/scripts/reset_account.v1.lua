#!lua
-- Resets an account whose window has ended, as its next request would.
-- KEYS: 1 account  2 events
-- ARGV: 1 suffix  2 budget, packed as in the terms of an admission  3 now in epoch ms
-- Returns reset, current (its window has not ended), or unloaded (nothing is known of its spend).
local before = redis.call('HGET', KEYS[1], 'started')
if not open_account(KEYS[1], ARGV[1], cmsgpack.unpack(ARGV[2]), tonumber(ARGV[3]), KEYS[2]) then
  return 'unloaded'
end
return redis.call('HGET', KEYS[1], 'started') == before and 'current' or 'reset'

#!lua
-- Resets an account whose window has ended, as its next request would.
-- KEYS: 1 account  2 events
-- ARGV: 1 suffix  2 budget, packed as in the terms of an admission  3 now in epoch ms
-- Returns reset, current (its window has not ended), or unloaded (nothing is known of its spend).
local account = read_account(KEYS[1], ARGV[1])
local started = account.started
if not open_window(account, cmsgpack.unpack(ARGV[2]), tonumber(ARGV[3]), KEYS[2]) then
  return 'unloaded'
end
return read_account(KEYS[1], ARGV[1]).started == started and 'current' or 'reset'

#!lua
-- Counts a request that will be refused for another reason against its accounts' limits.
-- KEYS: 1 events
-- ARGV: 1 2 3 prefixes of accounts, windows and buckets (same slot)  4 request id  5 terms
-- Returns a refusal, or an empty list.
local names = { events = KEYS[1], accounts = ARGV[1], windows = ARGV[2], buckets = ARGV[3] }
return pass_limits(cmsgpack.unpack(ARGV[5]), ARGV[4], names, now_ms(), true) or {}

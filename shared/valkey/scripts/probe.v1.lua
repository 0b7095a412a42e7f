#!lua
-- Counts a request that will be refused for another reason against its accounts' limits.
-- KEYS: 1 events, for the slot alone: the windows of its accounts are all in it
-- ARGV: 1 prefix of windows  2 request id  3 terms
-- Returns a refusal, or an empty list.
return pass_limits(cmsgpack.unpack(ARGV[3]), {}, ARGV[2], ARGV[1], now_ms(), true) or {}

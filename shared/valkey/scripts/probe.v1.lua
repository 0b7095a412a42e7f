#!lua
-- Counts a request that will be refused for another reason against its accounts' limits.
-- KEYS: none that is declared: they are those of its accounts, in one slot
-- ARGV: 1 prefix of windows  2 request id  3 terms
-- Returns a refusal, or an empty list.
return pass_limits(cmsgpack.unpack(ARGV[3]), {}, ARGV[2], ARGV[1], now_ms(), true) or {}

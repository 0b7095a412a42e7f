#!lua flags=allow-oom
-- Puts one row of an entry into the quarantine. The entry stays until all its rows are dealt with, so
-- the row is in one of the two at every moment.
-- Needs no free memory: what cannot be inserted must not keep what can from draining.
-- KEYS: 1 quarantine
-- ARGV: 1 entry  2 raw row  3 reason
return redis.call('XADD', KEYS[1], '*', 'r', ARGV[2], 'entry', ARGV[1], 'reason', ARGV[3])

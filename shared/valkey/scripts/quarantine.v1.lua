#!lua flags=allow-oom
-- Moves one entry of the spend stream to the quarantine; it is in one of the two at every moment.
-- Needs no free memory: what cannot be inserted must not keep what can from draining.
-- KEYS: 1 spend  2 quarantine
-- ARGV: 1 group  2 entry  3 raw row  4 reason
redis.call('XADD', KEYS[2], '*', 'r', ARGV[3], 'entry', ARGV[2], 'reason', ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
return redis.call('XDEL', KEYS[1], ARGV[2])

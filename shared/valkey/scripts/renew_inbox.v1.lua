#!lua flags=allow-oom
-- Keeps an inbox alive for one more lease, also while memory is short: else streams would be cut.
-- KEYS: 1 inbox lease  2 the set of inboxes
-- ARGV: 1 process  2 lease in ms
redis.call('SADD', KEYS[2], ARGV[1])
return redis.call('SET', KEYS[1], 1, 'PX', ARGV[2])

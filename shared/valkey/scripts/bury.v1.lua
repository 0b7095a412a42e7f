#!lua flags=allow-oom
-- Notes a job that is given up, without its body. It is settled afterwards.
-- KEYS: 1 buried
-- ARGV: 1 how many are kept, about  2.. the entry's fields
return redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', unpack(ARGV, 2))

#!lua
-- Sets an account's spend to what the ledger says, unless something was charged since it was asked.
-- KEYS: 1 account
-- ARGV: 1 the charges when loading began  2 spend in nano-dollars  3 since  4 started  5 resets
-- Returns loaded, or again.
if redis.call('HEXISTS', KEYS[1], 'spend') == 1 then
  return 'loaded'
end
if redis.call('HGET', KEYS[1], 'settled') ~= ARGV[1] then
  return 'again'
end
redis.call('HSET', KEYS[1], 'spend', ARGV[2], 'previous', 0, 'since', ARGV[3], 'started', ARGV[4],
  'resets', ARGV[5])
redis.call('HDEL', KEYS[1], 'settled')
return 'loaded'

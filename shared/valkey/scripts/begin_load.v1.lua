#!lua
-- Begins to load an account's spend from the ledger.
-- KEYS: 1 account  2 spend  3 loads
-- ARGV: 1 how long a job may live, in ms: those that run now hold nothing on this account
-- Returns loaded; or loading, the charges that came meanwhile, and the last row's entry: up to that
-- one the ledger must have them all.
if redis.call('HEXISTS', KEYS[1], 'spend') == 1 then
  return { 'loaded' }
end
redis.call('HSETNX', KEYS[1], 'settled', 0)
redis.call('HSETNX', KEYS[1], 'held', 0)
redis.call('SET', KEYS[3], 1, 'PX', ARGV[1])
local last = '0-0'
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = info[i + 1]
    end
  end
end
return { 'loading', redis.call('HGET', KEYS[1], 'settled'), last }

#!lua flags=allow-oom
-- Ends a job whose entry is in no lane: nobody else would ever release what it holds.
-- KEYS: 1 job  2 sealed-bytes  3.. all lanes
-- ARGV: 1 prefix of accounts (same slot)  2 request id: entries of two lanes may have the same id
-- Returns 1 if it was ended.
local state = redis.call('HMGET', KEYS[1], 'entry', 'size', 'hold')
if not state[1] then
  return 0
end
for i = 3, #KEYS do
  local found = redis.call('XRANGE', KEYS[i], state[1], state[1])
  if found[1] and found[1][2][2] == ARGV[2] then
    return 0
  end
end
if state[3] then
  release(state[3], 0, 0, ARGV[1])
end
redis.call('DECRBY', KEYS[2], state[2])
return redis.call('DEL', KEYS[1])

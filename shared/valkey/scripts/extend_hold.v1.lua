#!lua flags=allow-oom
-- Holds more for a job that needs more than was thought, on all its budgets or on none.
-- KEYS: 1 job
-- ARGV: 1 claim token  2 entry  3 nano-dollars more  4 prefix of accounts (same slot)
-- Returns ok, denied, gone (the job has ended), or fenced (another worker has it).
local state = redis.call('HMGET', KEYS[1], 'entry', 'token', 'hold')
if not state[1] then
  return 'gone'
end
if state[1] ~= ARGV[2] or state[2] ~= ARGV[1] then
  return 'fenced'
end
if not state[3] then
  return 'ok' -- it holds nothing, so nothing bounds it
end
local hold, more = cmsgpack.unpack(state[3]), tonumber(ARGV[3])
for _, holder in ipairs(hold[4]) do
  if holder[2] and holder[2] >= 0 then
    local money = redis.call('HMGET', ARGV[4] .. holder[1], 'spend', 'held')
    if not money[1] then
      return 'denied' -- not loaded: it may be spent
    end
    if tonumber(money[1]) + tonumber(money[2] or '0') + more > holder[2] then
      return 'denied'
    end
  end
end
for _, holder in ipairs(hold[4]) do
  if holder[2] then
    redis.call('HINCRBY', ARGV[4] .. holder[1], 'held', more)
  end
end
hold[1] = hold[1] + more
redis.call('HSET', KEYS[1], 'hold', cmsgpack.pack(hold))
return 'ok'

#!lua flags=allow-oom
-- Records an upstream attempt before its send, and the rows of attempts that ended before it.
-- KEYS: 1 job  2 spend  3 inbox lease  4 boot
-- ARGV: 1 claim token  2 entry  3 row id  4 the row as it would be if the worker died now
--       5 inbox lease seconds  6.. pairs of row id and final row ('' for an attempt that was never sent)
-- Returns ok, or: gone (ended or removed), fenced (another worker has it), cancelled (also when
-- nobody is left to read the answer).
local state = redis.call('HMGET', KEYS[1], 'entry', 'token', 'cancelled')
if not state[1] then
  return 'gone'
end
if state[1] ~= ARGV[2] or (state[2] and state[2] ~= ARGV[1]) then
  return 'fenced'
end
if state[3] or (redis.call('EXISTS', KEYS[3]) == 0 and not is_young(KEYS[4], ARGV[5])) then
  return 'cancelled'
end
for i = 6, #ARGV, 2 do
  -- Removing the record and writing its row are one step; a repeated call finds no record.
  if redis.call('HDEL', KEYS[1], 'a:' .. ARGV[i]) == 1 and ARGV[i + 1] ~= '' then
    redis.call('XADD', KEYS[2], '*', 'r', ARGV[i + 1])
  end
end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'a:' .. ARGV[3], ARGV[4])
return 'ok'

#!lua flags=allow-oom
-- Puts an unspoken job back at the end of its lane, uncounted, with the rows of its attempts.
-- KEYS: 1 lane  2 job  3 spend  4 spend-rows
-- ARGV: 1 claim token  2 entry  3.. pairs of row id and final row ('' for an attempt that was never sent)
-- Returns ok, gone, or fenced.
local state = redis.call('HMGET', KEYS[2], 'entry', 'token')
if not state[1] then
  return 'gone'
end
if state[1] ~= ARGV[2] or (state[2] and state[2] ~= ARGV[1]) then
  return 'fenced'
end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if not found[1] then
  return 'gone'
end
local rows = {}
for i = 3, #ARGV, 2 do
  if redis.call('HDEL', KEYS[2], 'a:' .. ARGV[i]) == 1 and ARGV[i + 1] ~= '' then
    rows[#rows + 1] = 'r'
    rows[#rows + 1] = ARGV[i + 1]
  end
end
write_rows(KEYS[3], KEYS[4], rows)
local entry = redis.call('XADD', KEYS[1], '*', unpack(found[1][2]))
redis.call('HSET', KEYS[2], 'entry', entry)
redis.call('HDEL', KEYS[2], 'token', 'progress')
redis.call('XACK', KEYS[1], 'workers', ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return 'ok'

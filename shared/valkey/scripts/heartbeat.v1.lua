#!lua flags=allow-oom
-- Renews a worker's leases and stores how far each job has come.
-- KEYS: 1 boot, then for each job: job, lane, inbox lease
-- ARGV: 1 consumer  2 inbox lease seconds, then for each job: claim token, entry, progress (0 for
--       none)
-- Returns for each job: ok, cancelled (also when nobody is left to read the answer), gone (it has
-- ended), or fenced (another worker has it).
local results = {}
for i = 2, #KEYS, 3 do
  local at = i + 1
  local state = redis.call('HMGET', KEYS[i], 'entry', 'token', 'cancelled')
  if not state[1] then
    results[#results + 1] = 'gone'
  elseif state[1] ~= ARGV[at + 1] or (state[2] and state[2] ~= ARGV[at]) then
    results[#results + 1] = 'fenced'
  else
    -- JUSTID renews the idle time without counting a delivery.
    redis.call('XCLAIM', KEYS[i + 1], 'workers', ARGV[1], 0, ARGV[at + 1], 'JUSTID')
    if ARGV[at + 2] ~= '0' then
      redis.call('HSET', KEYS[i], 'progress', ARGV[at + 2])
    end
    local unread = redis.call('EXISTS', KEYS[i + 2]) == 0 and not is_young(KEYS[1], ARGV[2])
    results[#results + 1] = (state[3] or unread) and 'cancelled' or 'ok'
  end
end
return results

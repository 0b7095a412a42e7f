#!lua flags=allow-oom
-- Renews a worker's leases and stores how far each job has come.
-- KEYS: for each job: job, lane
-- ARGV: 1 consumer, then for each job: claim token, entry, progress ('' for none)
-- Returns for each job: ok, cancelled, gone (it has ended), or fenced (another worker has it).
local results = {}
for i = 1, #KEYS, 2 do
  local at = 3 * (i - 1) / 2 + 2
  local state = redis.call('HMGET', KEYS[i], 'entry', 'token', 'cancelled')
  if not state[1] then
    results[#results + 1] = 'gone'
  elseif state[1] ~= ARGV[at + 1] or (state[2] and state[2] ~= ARGV[at]) then
    results[#results + 1] = 'fenced'
  else
    -- JUSTID renews the idle time without counting a delivery.
    redis.call('XCLAIM', KEYS[i + 1], 'workers', ARGV[1], 0, ARGV[at + 1], 'JUSTID')
    if ARGV[at + 2] ~= '' then
      redis.call('HSET', KEYS[i], 'progress', ARGV[at + 2])
    end
    results[#results + 1] = state[3] and 'cancelled' or 'ok'
  end
end
return results

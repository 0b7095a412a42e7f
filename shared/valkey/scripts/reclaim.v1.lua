#!lua flags=allow-oom
-- Takes over jobs whose worker has been silent for a whole lease, and fences that worker out.
-- KEYS: 1 lane  2 boot
-- ARGV: 1 consumer  2 lease ms  3 at most how many  4 prefix of job keys (same slot)
-- Returns for each job: entry, deliveries, the entry's fields, the job's state (HGETALL).
if is_young(KEYS[2], ARGV[2] / 1000) then
  return {}
end
local taken = {}
local pending = redis.call('XPENDING', KEYS[1], 'workers', 'IDLE', ARGV[2], '-', '+', ARGV[3])
for _, one in ipairs(pending) do
  local entry, deliveries = one[1], one[4] + 1
  local claimed = redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], ARGV[2], entry)
  if claimed[1] and claimed[1][2] then
    local fields = claimed[1][2]
    local job = ARGV[4] .. fields[2]
    local state = redis.call('HGETALL', job)
    if #state == 0 then
      redis.call('XACK', KEYS[1], 'workers', entry)
      redis.call('XDEL', KEYS[1], entry)
    else
      redis.call('HSET', job, 'token', deliveries .. ':' .. ARGV[1])
      taken[#taken + 1] = { entry, deliveries, fields, state }
    end
  else
    redis.call('XACK', KEYS[1], 'workers', entry)
  end
end
return taken

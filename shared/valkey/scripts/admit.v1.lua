#!lua
-- Admits jobs, or says why not. Asked again with the same request id it changes nothing.
-- KEYS: 1 spend  2 sealed-bytes, then for each job: lane, job, done
-- ARGV: 1 lane capacity  2 max sealed bytes
--       3 max spend backlog, less the rows that all jobs together may still add,
--       then for each job: request id, header, sealed body
-- Returns for each job the lane entry's id, or one of: duplicate, queue_full, memory_full,
-- spend_backlog.
-- Limits and holds belong here, between the capacity gates and the XADD: all or nothing.
local results = {}
local backlog = redis.call('XLEN', KEYS[1])
for i = 3, #KEYS, 3 do
  local lane, job, at = KEYS[i], KEYS[i + 1], i + 1
  local size = #ARGV[at + 2]
  local result
  if redis.call('EXISTS', job, KEYS[i + 2]) > 0 then
    result = 'duplicate'
  elseif redis.call('XLEN', lane) >= tonumber(ARGV[1]) then
    result = 'queue_full'
  elseif backlog >= tonumber(ARGV[3]) then
    result = 'spend_backlog'
  elseif redis.call('INCRBY', KEYS[2], size) > tonumber(ARGV[2]) then
    redis.call('DECRBY', KEYS[2], size)
    result = 'memory_full'
  else
    result = redis.call('XADD', lane, '*', 'r', ARGV[at], 'h', ARGV[at + 1], 'b', ARGV[at + 2])
    redis.call('HSET', job, 'entry', result, 'size', size)
  end
  results[#results + 1] = result
end
return results

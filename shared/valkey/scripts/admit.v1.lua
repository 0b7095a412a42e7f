#!lua
-- Admits jobs, or says why not. Asked again with the same request id it changes nothing.
-- KEYS: 1 spend  2 sealed-bytes, then for each job: lane, job, done
-- ARGV: 1 lane capacity  2 max sealed bytes
--       3 max spend backlog, less the rows that all jobs together may still add,
--       then for each job: request id, header, sealed body
-- Returns for each job the lane entry's id, or one of: duplicate, queue_full, memory_full,
-- spend_backlog.
-- Limits and holds belong here, between the capacity gates and the XADD: all or nothing.
local results, lengths = {}, {} -- what one call can ask once, it does not ask for every job
local backlog = redis.call('XLEN', KEYS[1])
local before = tonumber(redis.call('GET', KEYS[2]) or '0')
local sealed = before
for i = 3, #KEYS, 3 do
  local lane, job, at = KEYS[i], KEYS[i + 1], i + 1
  local size = #ARGV[at + 2]
  local length = lengths[lane] or redis.call('XLEN', lane)
  local result
  if redis.call('EXISTS', job, KEYS[i + 2]) > 0 then
    result = 'duplicate'
  elseif length >= tonumber(ARGV[1]) then
    result = 'queue_full'
  elseif backlog >= tonumber(ARGV[3]) then
    result = 'spend_backlog'
  elseif sealed + size > tonumber(ARGV[2]) then
    result = 'memory_full'
  else
    result = redis.call('XADD', lane, '*', 'r', ARGV[at], 'h', ARGV[at + 1], 'b', ARGV[at + 2])
    redis.call('HSET', job, 'entry', result, 'size', size)
    sealed = sealed + size
    length = length + 1
  end
  lengths[lane] = length
  results[#results + 1] = result
end
if sealed > before then
  redis.call('INCRBY', KEYS[2], sealed - before)
end
return results

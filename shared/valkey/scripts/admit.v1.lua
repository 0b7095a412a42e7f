#!lua
-- Admits one job, or says why not. Asked again with the same request id it changes nothing.
-- KEYS: 1 lane  2 job  3 done  4 sealed-bytes  5 spend
-- ARGV: 1 request id  2 header  3 sealed body  4 lane capacity  5 max sealed bytes
--       6 max spend backlog, less the rows that all jobs together may still add
-- Returns the lane entry's id, or one of: duplicate, queue_full, memory_full, spend_backlog.
-- Limits and holds belong here, between the capacity gates and the XADD: all or nothing.
if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then
  return 'duplicate'
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return 'queue_full'
end
if redis.call('XLEN', KEYS[5]) >= tonumber(ARGV[6]) then
  return 'spend_backlog'
end
local size = #ARGV[3]
if redis.call('INCRBY', KEYS[4], size) > tonumber(ARGV[5]) then
  redis.call('DECRBY', KEYS[4], size)
  return 'memory_full'
end
local entry = redis.call('XADD', KEYS[1], '*', 'r', ARGV[1], 'h', ARGV[2], 'b', ARGV[3])
redis.call('HSET', KEYS[2], 'entry', entry, 'size', size)
return entry

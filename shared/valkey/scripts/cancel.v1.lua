#!lua flags=allow-oom
-- Cancels a job wherever it is. Before its first attempt it is removed and costs nothing;
-- afterwards its worker is told, and finds the flag at its next heartbeat if the notice is lost.
-- KEYS: 1 job  2 done  3 lane  4 sealed-bytes
-- ARGV: 1 request id  2 how long it is remembered as done, in ms  3 prefix of control channels
--       4 'waiting': only if no worker has begun it  5 prefix of accounts
-- Returns removed, told, ended, or running (not touched, because of 4).
local state = redis.call('HMGET', KEYS[1], 'entry', 'token', 'size', 'hold')
if not state[1] then
  -- An admission that is still on its way must find that it came too late.
  redis.call('HSETEX', KEYS[2], 'PX', ARGV[2], 'FIELDS', 1, ARGV[1], 1)
  return 'ended'
end
if not state[2] then
  redis.call('XACK', KEYS[3], 'workers', state[1])
  redis.call('XDEL', KEYS[3], state[1])
  redis.call('DEL', KEYS[1])
  redis.call('HSETEX', KEYS[2], 'PX', ARGV[2], 'FIELDS', 1, ARGV[1], 1)
  redis.call('DECRBY', KEYS[4], state[3])
  if state[4] then
    release(state[4], 0, 0, ARGV[5])
  end
  return 'removed'
end
if ARGV[4] == 'waiting' then
  return 'running'
end
redis.call('HSET', KEYS[1], 'cancelled', 1)
local worker = string.match(state[2], ':(.*)$')
redis.call('SPUBLISH', ARGV[3] .. worker, 'cancel ' .. ARGV[1])
return 'told'

#!lua flags=allow-oom
-- Removes the inbox of an API process that let its lease run out.
-- KEYS: 1 inbox lease  2 inbox  3 the set of inboxes
-- ARGV: 1 process  2 grace in seconds
-- Returns 1 if it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
-- A lease runs on while the server is down: its owner gets time to come back.
local up = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
if up <= tonumber(ARGV[2]) then
  return 0
end
redis.call('UNLINK', KEYS[2])
return redis.call('SREM', KEYS[3], ARGV[1])

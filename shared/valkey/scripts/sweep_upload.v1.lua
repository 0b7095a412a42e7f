#!lua flags=allow-oom
-- Removes an upload whose job is gone, once it has been quiet: its job may not be admitted yet.
-- KEYS: 1 job  2 upload  3 the set of uploads
-- ARGV: 1 request id  2 quiet for how long, in ms
-- Returns 1 if it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
if redis.call('EXISTS', KEYS[2]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[2])
  local last = 0
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      last = tonumber(string.match(info[i + 1], '^%d+'))
    end
  end
  local now = redis.call('TIME')
  if now[1] * 1000 + now[2] / 1000 - last < tonumber(ARGV[2]) then
    return 0
  end
  redis.call('UNLINK', KEYS[2])
end
return redis.call('SREM', KEYS[3], ARGV[1])

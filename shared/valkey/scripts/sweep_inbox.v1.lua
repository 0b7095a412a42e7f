#!lua flags=allow-oom
-- Removes the inbox of an API process that let its lease run out.
-- KEYS: 1 inbox lease  2 inbox  3 the set of inboxes  4 boot
-- ARGV: 1 process  2 grace in seconds
-- Returns 1 if it was removed.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
if is_young(KEYS[4], ARGV[2]) then
  return 0
end
redis.call('UNLINK', KEYS[2])
return redis.call('SREM', KEYS[3], ARGV[1])

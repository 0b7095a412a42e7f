#!lua flags=allow-oom
-- Corrects what an account has spent by a difference that does not change while it is charged.
-- KEYS: 1 account
-- ARGV: 1 the `since` at which the difference was found  2 nano-dollars to add (may be negative)
-- Returns 1, or 0 where its window is another by now.
local state = redis.call('HMGET', KEYS[1], 'spend', 'since')
if not state[1] or state[2] ~= ARGV[1] then
  return 0
end
redis.call('HINCRBY', KEYS[1], 'spend', ARGV[2])
return 1

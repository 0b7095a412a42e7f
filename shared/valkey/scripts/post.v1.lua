#!lua flags=allow-oom
-- Posts replies of several jobs to one inbox in one entry. A job another worker has taken over
-- is left out; the first post of a job marks it as having spoken, in the same step.
-- KEYS: 1 inbox  2 inbox lease  3 boot  4.. a job key per reply
-- ARGV: 1 inbox lease seconds, then for each reply: claim token, request id, frame
-- Returns the positions (from 1) of the replies that were refused; {-1} when nobody reads the inbox.
if redis.call('EXISTS', KEYS[2]) == 0 and not is_young(KEYS[3], ARGV[1]) then
  return { -1 }
end
local refused, frames = {}, {}
for i = 4, #KEYS do
  local at = 3 * (i - 4) + 2
  local state = redis.call('HMGET', KEYS[i], 'token', 'spoke')
  if state[1] == ARGV[at] then
    if not state[2] then
      redis.call('HSET', KEYS[i], 'spoke', 1)
    end
    frames[#frames + 1] = ARGV[at + 1]
    frames[#frames + 1] = ARGV[at + 2]
  else
    refused[#refused + 1] = i - 3
  end
end
if #frames > 0 then
  redis.call('XADD', KEYS[1], '*', unpack(frames))
end
return refused

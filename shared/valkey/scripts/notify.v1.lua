#!lua flags=allow-oom
-- Tells the worker that runs a job to pause or to go on reading from its provider.
-- KEYS: 1 job
-- ARGV: 1 request id  2 prefix of control channels  3 the word: pause or resume
-- Returns 1 if there is a worker to tell.
local token = redis.call('HGET', KEYS[1], 'token')
if not token then
  return 0
end
redis.call('SPUBLISH', ARGV[2] .. string.match(token, ':(.*)$'), ARGV[3] .. ' ' .. ARGV[1])
return 1

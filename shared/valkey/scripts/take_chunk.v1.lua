#!lua flags=allow-oom
-- Takes a chunk off an upload before it is sent on. From here on the job counts as having spoken: a
-- part of its body is gone, so it cannot be run again.
-- KEYS: 1 job  2 upload  3 uploads  4 sealed-bytes
-- ARGV: 1 claim token  2 request id  3 entry  4 its size
-- Returns ok, gone (the job has ended), or fenced (another worker has it).
local token = redis.call('HGET', KEYS[1], 'token')
if not token then
  return 'gone'
end
if token ~= ARGV[1] then
  return 'fenced'
end
redis.call('HSET', KEYS[1], 'spoke', 1)
if redis.call('XDEL', KEYS[2], ARGV[3]) == 1 then
  local last, held = read_upload(KEYS[3], ARGV[2])
  write_upload(KEYS[3], ARGV[2], last, held - tonumber(ARGV[4]))
  redis.call('DECRBY', KEYS[4], ARGV[4])
end
return 'ok'

#!lua
-- Keeps one answer, and forgets as many others as a shard's bound asks for. A full server refuses it.
-- KEYS: 1 the entry  2 cache-index  3 cache-bytes
-- ARGV: 1 name  2 sealed entry  3 how long it lives, in ms  4 most bytes of all entries together
--       5 prefix of the keys of entries  6 how many others are forgotten at once, at most
--       7 what an entry takes beside its value, in bytes
-- Returns 1 when it is kept, 0 when it is larger than the bound, -1 when room is still being made.
-- A member of the index is `<name>:<size>`, its score the time it expires. Asked again it puts the
-- same entry once more.
local beside = tonumber(ARGV[7])
local size, most = #ARGV[2] + beside, tonumber(ARGV[4])
if size > most then
  return 0
end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local used = tonumber(redis.call('GET', KEYS[3]) or '0')
local function forget(member)
  if redis.call('ZREM', KEYS[2], member) == 1 then
    used = used - tonumber(string.match(member, ':(%d+)$'))
  end
end
-- Expired ones are gone by themselves; only the book still has them.
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, ARGV[6])) do
  forget(member)
end
local old = redis.call('STRLEN', KEYS[1])
if old > 0 then
  forget(ARGV[1] .. ':' .. (old + beside))
end
local left = tonumber(ARGV[6]) -- a bound that was lowered must not hold up the server
while used + size > most and left > 0 do
  left = left - 1
  local soonest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if not soonest[1] then
    used = 0 -- nothing is kept: the book was wrong
    break
  end
  if tonumber(soonest[2]) > now then
    redis.call('UNLINK', ARGV[5] .. string.match(soonest[1], '^(.*):%d+$'))
  end
  forget(soonest[1])
end
if used + size > most then
  redis.call('SET', KEYS[3], string.format('%.0f', used))
  redis.call('UNLINK', KEYS[1])
  return -1
end
if redis.call('ZADD', KEYS[2], now + ARGV[3], ARGV[1] .. ':' .. size) == 1 then
  used = used + size
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('SET', KEYS[3], string.format('%.0f', used))
return 1

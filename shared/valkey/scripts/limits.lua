-- Limits of a minute: requests by a sliding window, tokens by a bucket (GCRA). Times are in ms.
local MINUTE = 60000
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- A window is a sorted set of request ids by the time they were counted.
-- Returns how many more would be let in after one now (negative: not this one), and in how long the
-- next one leaves (or, where there is no room, the one that makes it).
local function look_at_window(window, limit, now)
  redis.call('ZREMRANGEBYSCORE', window, '-inf', now - MINUTE)
  local count = redis.call('ZCARD', window)
  if count == 0 then
    return limit - 1, MINUTE
  end
  local at = math.max(0, count - limit)
  local leaving = redis.call('ZRANGE', window, at, at, 'WITHSCORES')
  return limit - count - 1, tonumber(leaving[2]) + MINUTE - now
end

local function count_request(window, request, now)
  redis.call('ZADD', window, string.format('%.3f', now), request)
  redis.call('PEXPIRE', window, MINUTE)
end

-- A bucket is the time at which it will be full again. More tokens than it holds empty it.
-- Returns that time with these tokens taken, and how long they must wait for it (0: not at all).
local function look_at_bucket(bucket, limit, tokens, now)
  local full = math.max(tonumber(redis.call('GET', bucket) or '0'), now)
  local after = full + math.min(tokens, limit) * MINUTE / limit
  return after, math.max(0, after - now - MINUTE)
end

local function fill_bucket_at(bucket, full, now)
  if full > now then
    redis.call('SET', bucket, string.format('%.3f', full), 'PX', math.ceil(full - now))
  else
    redis.call('DEL', bucket)
  end
end

-- What a job took was an estimate; now its use is known.
local function correct_bucket(bucket, limit, taken, used)
  local now = now_ms()
  local full = math.max(tonumber(redis.call('GET', bucket) or '0'), now)
  fill_bucket_at(bucket, full + (used - math.min(taken, limit)) * MINUTE / limit, now)
end

-- Limits of a minute: requests by a sliding window, tokens by a bucket (GCRA). Times are in ms.
local MINUTE = 60000
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + time[2] / 1000
end

-- A window is a sorted set of request ids by the time they were counted. What has left it is removed
-- as soon as the oldest has; from then on it lives for two minutes, so it outlives all that it holds.
-- Returns how many more would be let in after one now (negative: not this one), and in how long the
-- next one leaves (or, where there is no room, the one that makes it); and whether it is empty.
local function look_at_window(window, limit, now)
  local oldest = redis.call('ZRANGE', window, 0, 0, 'WITHSCORES')
  if not oldest[1] or tonumber(oldest[2]) <= now - MINUTE then
    redis.call('ZREMRANGEBYSCORE', window, '-inf', now - MINUTE)
    redis.call('PEXPIRE', window, 2 * MINUTE)
    oldest = redis.call('ZRANGE', window, 0, 0, 'WITHSCORES')
    if not oldest[1] then
      return limit - 1, MINUTE, true
    end
  end
  local count = redis.call('ZCARD', window)
  local leaving = oldest
  if count > limit then -- the limit was lowered
    leaving = redis.call('ZRANGE', window, count - limit, count - limit, 'WITHSCORES')
  end
  return limit - count - 1, tonumber(leaving[2]) + MINUTE - now, false
end

local function count_request(window, request, now, is_first)
  redis.call('ZADD', window, string.format('%.3f', now), request)
  if is_first then
    redis.call('PEXPIRE', window, 2 * MINUTE)
  end
end

-- A bucket is the time at which it will be full again. More tokens than it holds empty it.
-- Returns that time with these tokens taken, and how long they must wait for it (0: not at all).
local function look_at_bucket(full, limit, tokens, now)
  local after = math.max(full, now) + math.min(tokens, limit) * MINUTE / limit
  return after, math.max(0, after - now - MINUTE)
end

local function fill_bucket_at(account, full, now)
  if full > now then
    redis.call('HSETEX', account, 'PX', math.ceil(full - now), 'FIELDS', 1, 'full',
      string.format('%.3f', full))
  else
    redis.call('HDEL', account, 'full')
  end
end

-- What a job took was an estimate; now its use is known. What has flowed back since it took them is
-- not given back again. What it used beyond is owed, but no more than a second minute's tokens: the
-- bucket may be many users', and one provider's count must not shut them all out.
local function correct_bucket(account, full, limit, taken, used, taken_at)
  local now = now_ms()
  local more = (used - math.min(taken, limit)) * MINUTE / limit
  if more < 0 then
    more = math.min(0, more + math.max(0, now - taken_at))
  end
  fill_bucket_at(account, math.min(math.max(full, now) + more, now + 2 * MINUTE), now)
end

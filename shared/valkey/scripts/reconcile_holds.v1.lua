#!lua flags=allow-oom
-- Compares what all accounts hold, and how many jobs they run, with the jobs there are. All of it is
-- one step, or jobs that come and go would look like a difference.
-- KEYS: 1 loads: names the slot
-- ARGV: 1 2 prefixes of jobs and accounts (same slot)  3 'fix': sets what differs
-- Returns for each account that differs: suffix, held, what it should be, running, what it should be.
local function names(prefix)
  local found, cursor = {}, '0' -- by name: a scan may tell one twice
  repeat
    local page = redis.call('SCAN', cursor, 'MATCH', prefix .. '*', 'COUNT', 1000)
    cursor = page[1]
    for _, name in ipairs(page[2]) do
      found[name] = true
    end
  until cursor == '0'
  return found
end
local held, running, suffixes = {}, {}, {}
for job in pairs(names(ARGV[1])) do
  local hold = redis.call('HGET', job, 'hold')
  if hold then
    local nano, _, _, holders = unpack(cmsgpack.unpack(hold))
    for _, holder in ipairs(holders) do
      suffixes[holder[1]] = true
      held[holder[1]] = (held[holder[1]] or 0) + (holder[2] and nano or 0)
      running[holder[1]] = (running[holder[1]] or 0) + (holder[3] and 1 or 0)
    end
  end
end
for account in pairs(names(ARGV[2])) do
  suffixes[string.sub(account, #ARGV[2] + 1)] = true
end
local different = {}
for suffix in pairs(suffixes) do
  local account = ARGV[2] .. suffix
  local state = redis.call('HMGET', account, 'held', 'running')
  local now_held, now_running = tonumber(state[1] or '0'), tonumber(state[2] or '0')
  local is_held, is_running = held[suffix] or 0, running[suffix] or 0
  if now_held ~= is_held or now_running ~= is_running then
    if ARGV[3] == 'fix' then
      if now_held ~= is_held then
        redis.call('HSET', account, 'held', string.format('%.0f', is_held))
      end
      if is_running > 0 then
        redis.call('HSET', account, 'running', is_running)
      else
        redis.call('HDEL', account, 'running')
      end
    end
    different[#different + 1] = { suffix, string.format('%.0f', now_held),
      string.format('%.0f', is_held), now_running, is_running }
  end
end
return different

-- Leases and idle times run on while the server is down. So nobody is judged by them until it has
-- been answering for as long as they last, loading its data not counted: the first to ask after a
-- start notes the time, under the server's run id.
local function is_young(boot, seconds)
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local known = redis.call('GET', boot)
  if not known or string.sub(known, 1, #run) ~= run then
    redis.call('SET', boot, run .. ':' .. now)
    return true
  end
  return now - tonumber(string.sub(known, #run + 2)) <= seconds * 1000
end

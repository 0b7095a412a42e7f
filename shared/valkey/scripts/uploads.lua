-- What is known of an upload: the number of its last chunk, the bytes that wait, when it last moved.
local function read_upload(uploads, id)
  local state = redis.call('HGET', uploads, id)
  if not state then
    return 0, 0, 0
  end
  local last, held, moved = string.match(state, '^(%d+) (%d+) (%d+)$')
  return tonumber(last), tonumber(held), tonumber(moved)
end
local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function write_upload(uploads, id, last, held)
  redis.call('HSET', uploads, id, string.format('%.0f %.0f %.0f', last, held, now_ms()))
end
local function drop_upload(upload, uploads, sealed_bytes, id)
  local _, held = read_upload(uploads, id)
  if held > 0 then
    redis.call('DECRBY', sealed_bytes, held)
  end
  redis.call('UNLINK', upload)
  return redis.call('HDEL', uploads, id)
end

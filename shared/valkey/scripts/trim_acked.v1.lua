#!lua flags=allow-oom
-- Drops stream entries that every group has had and acknowledged, should one not have been deleted.
-- KEYS: 1 spend  2 spend-rows
-- Returns how many were dropped.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end
local function parts(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
local ms, seq
for _, fields in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #fields, 2 do
    group[fields[i]] = fields[i + 1]
  end
  -- All before the oldest pending entry is done; with none pending, all that was delivered.
  local pending = redis.call('XPENDING', KEYS[1], group.name)
  local group_ms, group_seq
  if pending[1] > 0 then
    group_ms, group_seq = parts(pending[2])
  else
    group_ms, group_seq = parts(group['last-delivered-id'])
    group_seq = group_seq + 1
  end
  if not ms or group_ms < ms or (group_ms == ms and group_seq < seq) then
    ms, seq = group_ms, group_seq
  end
end
if not ms then
  return 0
end
local dropped = redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', ms, seq))
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('SET', KEYS[2], 0)
end
return dropped

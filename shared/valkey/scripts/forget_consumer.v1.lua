#!lua flags=allow-oom
-- Removes a consumer that holds nothing and has been silent. Looking and removing are one step:
-- removing one that has just been given entries would take those out of everybody's reach.
-- KEYS: 1 stream
-- ARGV: 1 group  2 consumer  3 silent for how long, in ms
-- Returns 1 if it was removed.
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local one = {}
  for i = 1, #fields, 2 do
    one[fields[i]] = fields[i + 1]
  end
  if one.name == ARGV[2] and one.pending == 0 and one.idle >= tonumber(ARGV[3]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
    return 1
  end
end
return 0

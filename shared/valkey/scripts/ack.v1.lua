#!lua flags=allow-oom
-- Ends spend entries: acknowledged, deleted and no longer counted in one step.
-- KEYS: 1 spend  2 spend-rows
-- ARGV: 1 group, then for each entry: its id, how many rows it has
local entries, rows = {}, 0
for i = 2, #ARGV, 2 do
  entries[#entries + 1] = ARGV[i]
  rows = rows + tonumber(ARGV[i + 1])
end
if redis.call('XACK', KEYS[1], ARGV[1], unpack(entries)) == #entries then
  redis.call('XDEL', KEYS[1], unpack(entries))
else -- asked again, or taken over: only what was still there is counted
  rows = 0
  for n, entry in ipairs(entries) do
    rows = rows + redis.call('XDEL', KEYS[1], entry) * tonumber(ARGV[2 * n + 1])
  end
end
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('SET', KEYS[2], 0) -- what was miscounted, when somebody deleted by hand, ends here
else
  redis.call('DECRBY', KEYS[2], rows)
end

#!lua flags=allow-oom
-- Renews what a consumer holds, without counting a delivery. Looking whose it is and renewing it are
-- one step: an entry that was taken over must not be taken back.
-- KEYS: 1 stream
-- ARGV: 1 group  2 consumer, then entries
-- Returns the entries that are not this consumer's any more.
local lost = {}
for i = 3, #ARGV do
  local entry = ARGV[i]
  if #redis.call('XPENDING', KEYS[1], ARGV[1], entry, entry, 1, ARGV[2]) == 0 then
    lost[#lost + 1] = entry
  else
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry, 'JUSTID')
  end
end
return lost

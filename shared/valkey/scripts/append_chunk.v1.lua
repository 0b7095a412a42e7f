#!lua
-- Adds a sealed chunk to an upload, or says why not. Asked again with the same number it changes
-- nothing.
-- KEYS: 1 upload  2 uploads  3 sealed-bytes
-- ARGV: 1 request id  2 number, from 1  3 field: c a chunk, e the end  4 sealed chunk
--       5 most bytes of it that may wait  6 most sealed bytes of all together
-- Returns ok, full (its reader is behind), memory_full, or gone (what came before was swept).
local number, size = tonumber(ARGV[2]), #ARGV[4]
local last, held = read_upload(KEYS[2], ARGV[1])
if number <= last then
  return 'ok'
end
if number > last + 1 then
  return 'gone'
end
if held > 0 and held + size > tonumber(ARGV[5]) then
  return 'full'
end
if tonumber(redis.call('GET', KEYS[3]) or '0') + size > tonumber(ARGV[6]) then
  return 'memory_full'
end
redis.call('XADD', KEYS[1], number .. '-0', ARGV[3], ARGV[4])
redis.call('INCRBY', KEYS[3], size)
write_upload(KEYS[2], ARGV[1], number, held + size)
return 'ok'

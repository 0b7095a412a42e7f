#!lua flags=allow-oom
-- Reads jobs of a lane without their bodies, for a sweeper that looks for those nobody waits for.
-- KEYS: 1 lane  2 boot
-- ARGV: 1 2 first and last entry  3 at most how many  4 for how many seconds after a start of the
--       server nobody is judged
-- Returns for each: entry, request id, header.
if is_young(KEYS[2], ARGV[4]) then
  return {}
end
local jobs = {}
for _, found in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])) do
  jobs[#jobs + 1] = { found[1], found[2][2], found[2][4] }
end
return jobs

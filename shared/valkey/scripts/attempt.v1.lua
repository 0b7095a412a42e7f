#!lua flags=allow-oom
-- Records upstream attempts before their sends, and the rows of attempts that ended before them.
-- KEYS: 1 spend  2 spend-rows  3 boot, then for each attempt: job, inbox lease
-- ARGV: 1 inbox lease seconds, then for each attempt: claim token, entry, row id, the row as it would
--       be if the worker died now, number of ended attempts, and for each of those: row id, final
--       row ('' for an attempt that was never sent)
-- Returns for each attempt ok, or: gone (ended or removed), fenced (another worker has it), cancelled
-- (also when nobody is left to read the answer).
local results, unread, rows = {}, {}, {}
local at = 2
for i = 4, #KEYS, 2 do
  local token, entry = ARGV[at], ARGV[at + 1]
  local next_attempt = at + 5 + 2 * tonumber(ARGV[at + 4])
  if unread[KEYS[i + 1]] == nil then
    unread[KEYS[i + 1]] = redis.call('EXISTS', KEYS[i + 1]) == 0 and not is_young(KEYS[3], ARGV[1])
  end
  local state = redis.call('HMGET', KEYS[i], 'entry', 'token', 'cancelled')
  local result = 'ok'
  if not state[1] then
    result = 'gone'
  elseif state[1] ~= entry or (state[2] and state[2] ~= token) then
    result = 'fenced'
  elseif state[3] or unread[KEYS[i + 1]] then
    result = 'cancelled'
  else
    for j = at + 5, next_attempt - 1, 2 do
      -- Removing the record and writing its row are one step; a repeated call finds no record.
      if redis.call('HDEL', KEYS[i], 'a:' .. ARGV[j]) == 1 and ARGV[j + 1] ~= '' then
        rows[#rows + 1] = 'r'
        rows[#rows + 1] = ARGV[j + 1]
      end
    end
    redis.call('HSET', KEYS[i], 'token', token, 'a:' .. ARGV[at + 2], ARGV[at + 3])
  end
  results[#results + 1] = result
  at = next_attempt
end
write_rows(KEYS[1], KEYS[2], rows)
return results

#!lua flags=allow-oom
-- Ends jobs that reply to one inbox: rows, transcripts, last replies, and the jobs' removal are one
-- step.
-- KEYS: 1 inbox  2 inbox lease  3 spend  4 spend-rows  5 sealed-bytes  6 done  7 loads  8 receipts,
--       then for each job: job, lane
-- ARGV: 1 how long a job is remembered as done, in ms  2 prefix of accounts,
--       then for each job: claim token, entry, request id, its cost in nano-dollars, tokens it used,
--       number of frames, number of rows, number of transcripts, frames.., rows.., transcripts..
-- Returns for each job: ok, gone (it had ended before), or fenced (another worker has it).
-- A call costs more than what it does: what can be one for all jobs is gathered and made once.
local results, frames, rows, transcripts, jobs, done, size = {}, {}, {}, {}, {}, {}, 0
local entries = {} -- by lane
local accounts = ARGV[2]
local is_loading = redis.call('EXISTS', KEYS[7]) == 1 -- an account, now or while these jobs ran
local at = 3
for i = 9, #KEYS, 2 do
  local token, entry, request = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local first_row = at + 8 + tonumber(ARGV[at + 5])
  local first_transcript = first_row + tonumber(ARGV[at + 6])
  local next_job = first_transcript + tonumber(ARGV[at + 7])
  local state = redis.call('HMGET', KEYS[i], 'entry', 'token', 'size', 'hold')
  if not state[1] then
    results[#results + 1] = 'gone'
  elseif state[1] ~= entry or (state[2] and state[2] ~= token) then
    results[#results + 1] = 'fenced'
  else
    local charged = {}
    if state[4] then
      charged = release(state[4], tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4]), accounts)
    end
    if is_loading and ARGV[at + 3] ~= '0' then
      charge_unheld(ARGV[first_row], tonumber(ARGV[at + 3]), entry, charged, accounts)
    end
    for j = at + 8, first_row - 1 do
      frames[#frames + 1] = request
      frames[#frames + 1] = ARGV[j]
    end
    for j = first_row, first_transcript - 1 do
      rows[#rows + 1] = 'r'
      rows[#rows + 1] = ARGV[j]
    end
    for j = first_transcript, next_job - 1 do
      transcripts[#transcripts + 1] = 't'
      transcripts[#transcripts + 1] = ARGV[j]
    end
    local lane = KEYS[i + 1]
    entries[lane] = entries[lane] or {}
    table.insert(entries[lane], entry)
    jobs[#jobs + 1] = KEYS[i]
    size = size + tonumber(state[3])
    done[#done + 1] = request
    done[#done + 1] = 1
    results[#results + 1] = 'ok'
  end
  at = next_job
end
for lane, ended in pairs(entries) do
  redis.call('XACK', lane, 'workers', unpack(ended))
  redis.call('XDEL', lane, unpack(ended))
end
write_rows(KEYS[3], KEYS[4], rows)
if #transcripts > 0 then
  redis.call('XADD', KEYS[8], '*', unpack(transcripts))
end
if #jobs > 0 then
  redis.call('DEL', unpack(jobs))
  redis.call('HSETEX', KEYS[6], 'PX', ARGV[1], 'FIELDS', #jobs, unpack(done))
  redis.call('DECRBY', KEYS[5], size)
end
if #frames > 0 and redis.call('EXISTS', KEYS[2], KEYS[1]) > 0 then
  redis.call('XADD', KEYS[1], '*', unpack(frames))
end
return results

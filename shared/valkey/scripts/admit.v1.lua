#!lua
-- Admits jobs, or says why not. Asked again with the same request id it changes nothing.
-- KEYS: 1 spend-rows  2 sealed-bytes  3 done  4 events  5 receipts, then for each job: lane, job
-- ARGV: 1 lane capacity  2 max sealed bytes
--       3 max spend backlog, less the rows that all jobs together may still add
--       4 most entries of transcripts that wait
--       5 6 prefixes of accounts and windows (same slot)
--       then for each job: request id, header, sealed body, terms ('' where it has no account)
-- Returns for each job the lane entry's id, or one of: duplicate, queue_full, memory_full,
-- spend_backlog, receipt_backlog; for one with terms a list: that word and what is to be told, or a
-- refusal.
-- Hold and enqueueing are one step: all or nothing.
local results, lengths = {}, {} -- what one call can ask once, it does not ask for every job
local backlog = tonumber(redis.call('GET', KEYS[1]) or '0')
local before = tonumber(redis.call('GET', KEYS[2]) or '0')
local sealed = before
local ids, jobs = {}, {}
local receipts = redis.call('XLEN', KEYS[5])
local names = { events = KEYS[4], accounts = ARGV[5], windows = ARGV[6] }
for i = 6, #KEYS, 2 do
  ids[#ids + 1] = ARGV[#ids * 4 + 7]
  jobs[#jobs + 1] = KEYS[i + 1]
end
local ended = redis.call('HMGET', KEYS[3], unpack(ids))
local is_new = {} -- in this call, so that an id that stands there twice is let in once
local any_known = redis.call('EXISTS', unpack(jobs)) > 0
for n, job in ipairs(jobs) do
  local lane, at = KEYS[2 * n + 4], 4 * n + 3
  local size = #ARGV[at + 2]
  local length = lengths[lane] or redis.call('XLEN', lane)
  local terms = ARGV[at + 3]
  local result, refusal, hold, told
  if ended[n] or is_new[job] or (any_known and redis.call('EXISTS', job) > 0) then
    result = 'duplicate'
  elseif length >= tonumber(ARGV[1]) then
    result = 'queue_full'
  elseif backlog >= tonumber(ARGV[3]) then
    result = 'spend_backlog'
  elseif receipts >= tonumber(ARGV[4]) then
    result = 'receipt_backlog'
  elseif sealed + size > tonumber(ARGV[2]) then
    result = 'memory_full'
  elseif terms ~= '' then
    refusal, hold, told = pass(terms, ARGV[at], names)
  end
  if refusal then
    result = refusal
  elseif not result then
    result = redis.call('XADD', lane, '*', 'r', ARGV[at], 'h', ARGV[at + 1], 'b', ARGV[at + 2])
    redis.call('HSET', job, 'entry', result, 'size', size)
    if hold then
      redis.call('HSET', job, 'hold', hold)
      result = { result, told }
    end
    is_new[job] = true
    sealed = sealed + size
    length = length + 1
  end
  lengths[lane] = length
  results[n] = result
end
if sealed > before then
  redis.call('INCRBY', KEYS[2], sealed - before)
end
return results

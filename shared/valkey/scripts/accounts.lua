-- What accounts have spent and hold. An account is a hash; money is in nano-dollars, times in epoch
-- ms:
--   spend     of requests admitted since `since`; absent: not loaded from the ledger yet
--   previous  of those admitted before, which have ended since
--   held      for jobs that have not ended
--   since, started, resets   the window that is counted, as Postgres and resets have set it
--   running   jobs that have not ended, where their number is limited
--   settled   charges that came while spend was not loaded
--   warned    the `since` for which the soft limit was told
-- What a job holds stands in its state, packed: {nano, tokens, admitted, accounts}, each account
-- {suffix, most it may spend (-1: anything; false: no budget), whether it has a place, tokens/min}.

-- The ledger has a row of it, or will have: it was written in the same step.
local function charge(account, nano, admitted)
  if nano == 0 then
    return
  end
  local state = redis.call('HMGET', account, 'spend', 'since')
  if not state[1] then
    redis.call('HINCRBY', account, 'settled', 1)
  else
    local period = admitted >= tonumber(state[2]) and 'spend' or 'previous'
    redis.call('HINCRBY', account, period, nano)
  end
end

-- Ends what a job holds, and charges what it cost. Returns the accounts that were charged.
local function release(packed, nano, used, accounts, buckets)
  local held, taken, admitted, holders = unpack(cmsgpack.unpack(packed))
  local charged = {}
  for _, holder in ipairs(holders) do
    local account = accounts .. holder[1]
    if holder[2] then
      redis.call('HINCRBY', account, 'held', -held)
      charge(account, nano, admitted)
      charged[holder[1]] = true
    end
    if holder[3] and redis.call('HINCRBY', account, 'running', -1) <= 0 then
      redis.call('HDEL', account, 'running') -- an account that is not a budget's leaves nothing
    end
    if holder[4] > 0 then
      correct_bucket(buckets .. holder[1], holder[4], taken, used)
    end
  end
  return charged
end

-- Charges accounts that were loaded while the job ran: it does not hold anything there. Its spend row
-- says whose they are: an array of over 15 members, which are row, request, tenant, user, key, …
local function charge_unheld(row, nano, entry, charged, accounts)
  local _, _, _, tenant, user, key = cmsgpack.unpack_limit(row, 5, 3)
  local admitted = tonumber(string.match(entry, '^(%d+)'))
  local suffixes = { 'user:' .. #tenant .. ':' .. tenant .. ':' .. user }
  if key then
    suffixes[2] = 'key:' .. key
  end
  for _, suffix in ipairs(suffixes) do
    if not charged[suffix] and redis.call('EXISTS', accounts .. suffix) == 1 then
      charge(accounts .. suffix, nano, admitted)
    end
  end
end

-- What accounts have spent and hold. An account is a hash; money is in nano-dollars, times in epoch
-- ms:
--   spend     of requests admitted since `since`; absent: not loaded from the ledger yet
--   previous  of those admitted before, which have ended since
--   held      for jobs that have not ended
--   since, started, resets   the window that is counted, as Postgres and resets have set it
--   running   jobs that have not ended, where their number is limited
--   full      when its tokens of a minute will be full again; a field with a TTL
--   settled   charges that came while spend was not loaded
--   warned    the `since` for which the soft limit was told
-- What a job holds stands in its state, packed: {nano, tokens, admitted, accounts}, each account
-- {suffix, most it may spend (-1: anything; false: no budget), whether it has a place, tokens/min}.


-- In which of its windows a charge belongs. The ledger has a row of it, or will have: that was written
-- in the same step. Without a spend it is only noted, for the load that is going on.
local function charge(account, spend, since, previous, nano, admitted)
  if not spend then
    redis.call('HINCRBY', account, 'settled', 1)
  elseif admitted >= tonumber(since) then
    redis.call('HSET', account, 'spend', tonumber(spend) + nano)
  else
    redis.call('HSET', account, 'previous', tonumber(previous) + nano)
  end
end

local function release_one(holder, account, hold, nano, used)
  local held, taken, admitted = unpack(hold)
  local spend, since, previous, holds, running, full = unpack(
    redis.call('HMGET', account, 'spend', 'since', 'previous', 'held', 'running', 'full'))
  if holder[2] then
    -- Whoever deletes an account by hand deletes what is held, too: it must not become a credit.
    redis.call('HSET', account, 'held', math.max(0, tonumber(holds or '0') - held))
    if nano > 0 then
      charge(account, spend, since, previous, nano, admitted)
    end
  end
  if holder[3] then
    if tonumber(running or '0') > 1 then
      redis.call('HSET', account, 'running', tonumber(running) - 1)
    else
      redis.call('HDEL', account, 'running') -- an account that is not a budget's leaves nothing
    end
  end
  if holder[4] > 0 then
    correct_bucket(account, tonumber(full or '0'), holder[4], taken, used, admitted)
  end
end

-- Whatever is wrong with an account, the job ends, and the others are settled: the ledger is right, and
-- counters can be reconciled with it.
local function attempted(what, ...)
  local done, answer = pcall(what, ...)
  if not done then
    redis.log(redis.LOG_WARNING, 'an account was not settled: ' .. tostring(answer))
  end
end

-- Ends what a job holds, and charges what it cost. Returns the accounts that were charged.
local function release(packed, nano, used, accounts)
  local hold, charged = cmsgpack.unpack(packed), {}
  for _, holder in ipairs(hold[4]) do
    attempted(release_one, holder, accounts .. holder[1], hold, nano, used)
    charged[holder[1]] = holder[2]
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
    local account = accounts .. suffix
    if not charged[suffix] and redis.call('HEXISTS', account, 'held') == 1 then
      local spend, since, previous =
        unpack(redis.call('HMGET', account, 'spend', 'since', 'previous'))
      attempted(charge, account, spend, since, previous, nano, admitted)
    end
  end
end

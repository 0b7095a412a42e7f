-- The gates a job passes on its accounts, and what it then holds. Its terms are packed: {nano,
-- is free, tokens, admitted, accounts}; an account {suffix, requests/min, tokens/min, jobs at a time
-- (0: no limit), budget or false}; a budget {id, most, soft limit (-1: none), duration, started,
-- resets (0: never), since}. A refusal is {word, number of the account, wait in ms, its limit}.

-- All that is known of an account, read once.
local function read_account(key, suffix)
  local fields = redis.call('HMGET', key, 'spend', 'held', 'since', 'started', 'resets', 'previous',
    'warned', 'running', 'full')
  return {
    key = key, suffix = suffix, spend = tonumber(fields[1] or nil),
    held = tonumber(fields[2] or '0'), since = tonumber(fields[3] or '0'),
    started = tonumber(fields[4] or '0'), resets = tonumber(fields[5] or '0'),
    previous = tonumber(fields[6] or '0'), warned = tonumber(fields[7] or '-1'),
    running = tonumber(fields[8] or '0'), full = tonumber(fields[9] or '0'),
  }
end

-- Spend begins at 0 again, what is held stays. Background keeps the history.
local function reset(account, budget, admitted, events)
  local duration = budget[4]
  local start, after, previous = account.resets, 0, account.spend
  if duration > 0 then
    start = account.resets + math.floor((admitted - account.resets) / duration) * duration
    after = start + duration
  end
  redis.call('XADD', events, '*', 'kind', 'budget_reset', 'account', account.suffix,
    'budget', budget[1], 'spend', previous, 'at', start, 'next', after)
  if start > account.resets then
    previous = 0 -- of the window just before, in which nothing was asked
  end
  redis.call('HSET', account.key, 'spend', 0, 'previous', previous, 'since', start,
    'started', start, 'resets', after)
  account.spend, account.since = 0, start
end

-- Brings the account into its present window. Returns false while it is not loaded.
local function open_window(account, budget, admitted, events)
  if not account.spend then
    return false
  end
  if budget[5] > account.started or budget[7] > account.since then
    -- Somebody has set the window anew; meanwhile spend may not have been counted here.
    redis.call('HDEL', account.key, 'spend')
    return false
  end
  if account.resets > 0 and admitted >= account.resets then
    reset(account, budget, admitted, events)
  elseif admitted < account.since then
    account.spend = account.previous -- by its own clock it belongs to the window before
  end
  return true
end

-- Returns a refusal, or nil and what is to be told: {limit, left, ms} of requests and of tokens.
local function pass_limits(terms, accounts, request, windows, now, is_probe)
  local refusal, told, empty = nil, { {}, {} }, {}
  local function judge(word, n, left, wait, limit)
    local kind = told[word == 'requests' and 1 or 2]
    if left < 0 then
      if not refusal or wait > refusal[3] then
        refusal = { word, n, math.ceil(wait), limit }
      end
    elseif word ~= 'concurrent' and (not kind[1] or left < kind[2]) then
      kind[1], kind[2], kind[3] = limit, left, math.ceil(wait)
    end
  end
  for n, one in ipairs(terms[5]) do
    local account, requests, tokens, jobs = accounts[n], one[2], one[3], one[4]
    if requests > 0 then
      local left, wait
      left, wait, empty[n] = look_at_window(windows .. one[1], requests, now)
      judge('requests', n, left, wait, requests)
    end
    if tokens > 0 and not is_probe then
      local wait
      account.full, wait = look_at_bucket(account.full, tokens, terms[3], now)
      local left = math.floor((MINUTE - account.full + now) * tokens / MINUTE)
      judge('tokens', n, wait > 0 and -1 or left, wait > 0 and wait or account.full - now, tokens)
    end
    if jobs > 0 and not is_probe then
      judge('concurrent', n, jobs - account.running - 1, 1000, jobs)
    end
  end
  if refusal then
    return refusal
  end
  for n, one in ipairs(terms[5]) do -- counted, whatever else refuses it
    if one[2] > 0 then
      count_request(windows .. one[1], request, now, empty[n])
    end
  end
  return nil, told
end

-- Returns a refusal, or nil and what is to be told: {spend, most} where a soft limit is passed.
local function pass_budgets(terms, accounts, events)
  local nano, is_free, told = terms[1], terms[2], {}
  for n, one in ipairs(terms[5]) do
    local budget, account = one[5], accounts[n]
    if budget then
      local spend, most, soft = account.spend, budget[2], budget[3]
      if not is_free and most >= 0 and (spend >= most or spend + account.held + nano > most) then
        return { 'budget', n, 0, most }
      end
      if soft >= 0 and spend >= soft then
        told = { string.format('%.0f', spend), string.format('%.0f', most) }
        if account.warned ~= account.since then
          redis.call('HSET', account.key, 'warned', account.since)
          redis.call('XADD', events, '*', 'kind', 'budget_soft_limit', 'account', one[1],
            'budget', budget[1], 'spend', spend, 'soft', soft, 'max', most)
        end
      end
    end
  end
  return nil, told
end

-- Puts the job's hold on all its accounts, and returns it packed, for the job's state.
local function place(terms, accounts, now)
  local holders = {}
  for n, one in ipairs(terms[5]) do
    local account, tokens, jobs, budget, fields = accounts[n], one[3], one[4], one[5], {}
    if budget then
      fields[1], fields[2] = 'held', account.held + terms[1]
    end
    if jobs > 0 then
      fields[#fields + 1] = 'running'
      fields[#fields + 1] = account.running + 1
    end
    if #fields > 0 then
      redis.call('HSET', account.key, unpack(fields))
    end
    if tokens > 0 then
      fill_bucket_at(account.key, account.full, now)
    end
    holders[n] = { one[1], budget and budget[2] or false, jobs > 0, tokens }
  end
  return cmsgpack.pack({ terms[1], terms[3], terms[4], holders })
end

-- All gates, in Otari's order. Returns a refusal, or nil, the hold, and what is to be told.
local function pass_all(packed, request, names)
  local terms, accounts = cmsgpack.unpack(packed), {}
  for n, one in ipairs(terms[5]) do
    accounts[n] = read_account(names.accounts .. one[1], one[1])
    if one[5] and not open_window(accounts[n], one[5], terms[4], names.events) then
      return { 'unloaded', n, 0, 0 }
    end
  end
  local now = now_ms()
  local refusal, told = pass_limits(terms, accounts, request, names.windows, now, false)
  if refusal then
    return refusal
  end
  local refused, soft = pass_budgets(terms, accounts, names.events)
  if refused then
    return refused
  end
  told[3] = soft
  return nil, place(terms, accounts, now), told
end

-- What is wrong with one job's accounts is not to refuse the others of its call.
local function pass(packed, request, names)
  local done, refusal, hold, told = pcall(pass_all, packed, request, names)
  if done then
    return refusal, hold, told
  end
  redis.log(redis.LOG_WARNING, 'an account could not be asked: ' .. tostring(refusal))
  return { 'failed', 1, 0, 0 }
end

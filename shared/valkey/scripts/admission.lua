-- The gates a job passes on its accounts, and what it then holds. Its terms are packed: {nano,
-- is free, tokens, admitted, accounts}; an account {suffix, requests/min, tokens/min, jobs at a time
-- (0: no limit), budget or false}; a budget {id, most, soft limit (-1: none), duration, started,
-- resets (0: never), since}. A refusal is {word, number of the account, wait in ms, its limit}.

-- Spend begins at 0 again, what is held stays. Background keeps the history.
local function reset(account, suffix, budget, state, admitted, events)
  local resets, duration = tonumber(state[4]), budget[4]
  local start, after, previous = resets, 0, state[1]
  if duration > 0 then
    start = resets + math.floor((admitted - resets) / duration) * duration
    after = start + duration
  end
  redis.call('XADD', events, '*', 'kind', 'budget_reset', 'account', suffix, 'budget', budget[1],
    'spend', previous, 'at', start, 'next', after)
  if start > resets then
    previous = 0 -- of the window just before, in which nothing was asked
  end
  redis.call('HSET', account, 'spend', 0, 'previous', previous, 'since', start, 'started', start,
    'resets', after)
  state[1], state[2] = 0, start
end

-- The account's state, in its present window; nil while it is not loaded.
local function open_account(account, suffix, budget, admitted, events)
  local state = redis.call('HMGET', account, 'spend', 'since', 'started', 'resets', 'held', 'warned',
    'previous')
  if not state[1] then
    return nil
  end
  if budget[5] > tonumber(state[3]) or budget[7] > tonumber(state[2]) then
    -- Somebody has set the window anew; meanwhile spend may not have been counted here.
    redis.call('HDEL', account, 'spend')
    return nil
  end
  if tonumber(state[4]) > 0 and admitted >= tonumber(state[4]) then
    reset(account, suffix, budget, state, admitted, events)
  elseif admitted < tonumber(state[2]) then
    state[1] = state[7] -- by its own clock it belongs to the window before, and is charged there
  end
  return state
end

-- Returns a refusal, or nil and what is to be told: {limit, left, ms} of requests and of tokens.
local function pass_limits(terms, request, names, now, is_probe)
  local refusal, told, fulls = nil, { {}, {} }, {}
  local function refuse(word, n, wait, limit)
    if not refusal or wait > refusal[3] then
      refusal = { word, n, math.ceil(wait), limit }
    end
  end
  for n, one in ipairs(terms[5]) do
    local suffix, requests, tokens, jobs = one[1], one[2], one[3], one[4]
    if requests > 0 then
      local left, wait = look_at_window(names.windows .. suffix, requests, now)
      if left < 0 then
        refuse('requests', n, wait, requests)
      elseif not told[1][1] or left < told[1][2] then
        told[1] = { requests, left, math.ceil(wait) }
      end
    end
    if tokens > 0 and not is_probe then
      local full, wait = look_at_bucket(names.buckets .. suffix, tokens, terms[3], now)
      fulls[n] = full
      local left = math.floor((MINUTE - full + now) * tokens / MINUTE)
      if wait > 0 then
        refuse('tokens', n, wait, tokens)
      elseif not told[2][1] or left < told[2][2] then
        told[2] = { tokens, left, math.ceil(full - now) }
      end
    end
    if jobs > 0 and not is_probe then
      if tonumber(redis.call('HGET', names.accounts .. suffix, 'running') or '0') >= jobs then
        refuse('concurrent', n, 1000, jobs)
      end
    end
  end
  if refusal then
    return refusal
  end
  for _, one in ipairs(terms[5]) do -- counted, whatever else refuses it
    if one[2] > 0 then
      count_request(names.windows .. one[1], request, now)
    end
  end
  return nil, told, fulls
end

-- Returns a refusal, or nil and what is to be told: {spend, most} where a soft limit is passed.
local function pass_budgets(terms, states, names)
  local nano, is_free, told = terms[1], terms[2], {}
  for n, one in ipairs(terms[5]) do
    local budget, state = one[5], states[n]
    if budget then
      local spend, most, soft = tonumber(state[1]), budget[2], budget[3]
      local held = tonumber(state[5] or '0')
      if not is_free and most >= 0 and (spend >= most or spend + held + nano > most) then
        return { 'budget', n, 0, most }
      end
      if soft >= 0 and spend >= soft then
        told = { string.format('%.0f', spend), string.format('%.0f', most) }
        if tonumber(state[6] or '-1') ~= tonumber(state[2]) then
          redis.call('HSET', names.accounts .. one[1], 'warned', state[2])
          redis.call('XADD', names.events, '*', 'kind', 'budget_soft_limit', 'account', one[1],
            'budget', budget[1], 'spend', state[1], 'soft', soft, 'max', most)
        end
      end
    end
  end
  return nil, told
end

-- Puts the job's hold on all its accounts, and returns it packed, for the job's state.
local function place(terms, fulls, names, now)
  local holders = {}
  for n, one in ipairs(terms[5]) do
    local account, budget = names.accounts .. one[1], one[5]
    if budget then
      redis.call('HINCRBY', account, 'held', terms[1])
    end
    if one[4] > 0 then
      redis.call('HINCRBY', account, 'running', 1)
    end
    if one[3] > 0 then
      fill_bucket_at(names.buckets .. one[1], fulls[n], now)
    end
    holders[n] = { one[1], budget and budget[2] or false, one[4] > 0, one[3] }
  end
  return cmsgpack.pack({ terms[1], terms[3], terms[4], holders })
end

-- All gates, in Otari's order. Returns a refusal, or nil, the hold, and what is to be told.
local function pass(packed, request, names)
  local terms, states = cmsgpack.unpack(packed), {}
  for n, one in ipairs(terms[5]) do
    if one[5] then
      states[n] =
        open_account(names.accounts .. one[1], one[1], one[5], terms[4], names.events)
      if not states[n] then
        return { 'unloaded', n, 0, 0 }
      end
    end
  end
  local now = now_ms()
  local refusal, told, fulls = pass_limits(terms, request, names, now, false)
  if refusal then
    return refusal
  end
  local refused, soft = pass_budgets(terms, states, names)
  if refused then
    return refused
  end
  told[3] = soft
  return nil, place(terms, fulls, names, now), told
end

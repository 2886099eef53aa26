-- sluice limits, version 1. The algorithm of buckets.py inside Redis: one call decides about all of a
-- request's subjects, on the server's clock, all or nothing. scripts.py is the caller; it names the version and
-- the digest of this text, and a test compares them.
--
-- A subject is two keys: a hash (requests, tokens: when the bucket is empty again; held, day, day_spent, month,
-- month_spent: money) and a sorted set of leases ("id:held" scored with its expiry). Times are microseconds since
-- 1970, money is in micro-units; all of it integers, which doubles hold exactly up to 2^53.
--
-- ARGV[1] is what to do:
--   reserve  KEYS: hash, leases of each subject. ARGV: lease, ttl, worst, then for each subject
--            request_us, token_us, concurrent, day_cap, month_cap (0 and -1: no bound).
--            Returns {1 or 0, now, subject, dimension, wait_us, then used_us of requests and tokens of each subject}.
--   settle   KEYS: the caller's marker, then hash, leases of each subject. ARGV: sequence number, then for each
--            subject request_us, token_us, spent, number of leases that end, their members.
--            Applied once: a batch whose number is not above the marker's returns 0 and changes nothing.
--   restore  KEYS: hash of each subject. ARGV: for each a day, and what is known to be spent on it and in its month.
--   beat     KEYS: members, then leases, hash of each subject. ARGV: caller, ttl of a member, ttl of a lease, then for
--            each subject the number of running leases and their members. Returns the number of members.

local WINDOW, DAY, BUSY_WAIT = 60000000, 86400000000, 1000000
local MARKER_TTL_MS = 604800000
local time = redis.call("TIME")
local now = time[1] * 1000000 + time[2]

local function int(number) return string.format("%.0f", number) end

local function month_of(day)
  local z = day + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return year * 12 + month - 1
end

local function first_day(months)
  local year, month = math.floor(months / 12), months % 12 + 1
  if month <= 2 then year = year - 1 end
  local era = math.floor(year / 400)
  local yoe = year - era * 400
  local doy = math.floor((153 * (month + (month > 2 and -3 or 9)) + 2) / 5)
  return era * 146097 + yoe * 365 + math.floor(yoe / 4) - math.floor(yoe / 100) + doy - 719468
end

local function load(key)
  local h = redis.call("HMGET", key, "requests", "tokens", "held", "day", "day_spent", "month", "month_spent")
  local s = {requests = tonumber(h[1] or 0), tokens = tonumber(h[2] or 0), held = tonumber(h[3] or 0)}
  if h[4] then
    s.day, s.day_spent, s.month, s.month_spent = tonumber(h[4]), tonumber(h[5]), tonumber(h[6]), tonumber(h[7])
  end
  return s
end

local function roll(s)
  local day = math.floor(now / DAY)
  if s.day == day then return end
  s.day, s.day_spent = day, 0
  local month = month_of(day)
  if s.month ~= month then s.month, s.month_spent = month, 0 end
end

local function save(key, s)
  local ends = math.max(s.requests, s.tokens, now)
  if s.day then
    redis.call("HSET", key, "requests", int(s.requests), "tokens", int(s.tokens), "held", int(s.held),
      "day", int(s.day), "day_spent", int(s.day_spent), "month", int(s.month), "month_spent", int(s.month_spent))
    ends = math.max(ends, first_day(s.month + 1) * DAY)
  else
    redis.call("HSET", key, "requests", int(s.requests), "tokens", int(s.tokens))
  end
  redis.call("PEXPIREAT", key, int(math.ceil(ends / 1000) + 1000))
end

local function held_by(member) return tonumber(string.match(member, ":(%d+)$")) end

local function expire(leases, s)
  local late = redis.call("ZRANGEBYSCORE", leases, "-inf", int(now))
  for _, member in ipairs(late) do
    redis.call("ZREM", leases, member)
    s.held = math.max(0, s.held - held_by(member))
  end
  return #late > 0
end

local function moved(tat, delta)
  if delta > 0 and tat < now then tat = now end
  return tat + delta
end

local function reserve()
  local lease, ttl, worst = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
  local horizon = now + WINDOW
  local states, asks = {}, {}
  local subject, dimension, longest = 0, 0, 0
  local function refuse(i, which, wait)
    if wait > longest then subject, dimension, longest = i - 1, which, wait end
  end
  for i = 1, #KEYS / 2 do
    local a = 5 * i
    local ask = {request_us = tonumber(ARGV[a]), token_us = tonumber(ARGV[a + 1]),
      concurrent = tonumber(ARGV[a + 2]), day = tonumber(ARGV[a + 3]), month = tonumber(ARGV[a + 4])}
    ask.budget = ask.day >= 0 or ask.month >= 0
    ask.leased = ask.budget or ask.concurrent >= 0
    local key, leases = KEYS[2 * i - 1], KEYS[2 * i]
    local s = load(key)
    if ask.leased and expire(leases, s) and s.day then redis.call("HSET", key, "held", int(s.held)) end
    refuse(i, 0, s.requests + ask.request_us - horizon)
    refuse(i, 1, s.tokens + ask.token_us - horizon)
    if ask.concurrent >= 0 and redis.call("ZCARD", leases) >= ask.concurrent then refuse(i, 2, BUSY_WAIT) end
    if ask.budget then
      roll(s)
      local committed = s.held + worst
      if ask.day >= 0 and s.day_spent + committed > ask.day then
        refuse(i, 3, s.day_spent + worst > ask.day and (s.day + 1) * DAY - now or BUSY_WAIT)
      end
      if ask.month >= 0 and s.month_spent + committed > ask.month then
        refuse(i, 4, s.month_spent + worst > ask.month and first_day(s.month + 1) * DAY - now or BUSY_WAIT)
      end
    end
    states[i], asks[i] = s, ask
  end
  local reply = {longest > 0 and 0 or 1, now, subject, dimension, longest}
  for i, s in ipairs(states) do
    local ask = asks[i]
    if longest == 0 then
      s.requests = math.max(s.requests, now) + ask.request_us
      s.tokens = math.max(s.tokens, now) + ask.token_us
      if ask.leased then
        local held = ask.budget and worst or 0
        redis.call("ZADD", KEYS[2 * i], int(now + ttl), lease .. ":" .. int(held))
        redis.call("PEXPIRE", KEYS[2 * i], int(math.ceil(ttl / 1000) + 1000))
        s.held = s.held + held
      end
      save(KEYS[2 * i - 1], s)
    end
    reply[#reply + 1] = math.max(0, s.requests - now)
    reply[#reply + 1] = math.max(0, s.tokens - now)
  end
  return reply
end

local function settle()
  local sequence = tonumber(ARGV[2])
  if sequence <= tonumber(redis.call("GET", KEYS[1]) or 0) then return 0 end
  redis.call("SET", KEYS[1], int(sequence), "PX", int(MARKER_TTL_MS))
  local a = 3
  for k = 2, #KEYS, 2 do
    local s = load(KEYS[k])
    s.requests = moved(s.requests, tonumber(ARGV[a]))
    s.tokens = moved(s.tokens, tonumber(ARGV[a + 1]))
    local spent, count = tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
    for m = a + 4, a + 3 + count do
      if redis.call("ZREM", KEYS[k + 1], ARGV[m]) == 1 then
        s.held = math.max(0, s.held - held_by(ARGV[m]))
      end
    end
    if spent >= 0 then
      roll(s)
      s.day_spent, s.month_spent = s.day_spent + spent, s.month_spent + spent
    end
    if s.day or s.requests > now or s.tokens > now then save(KEYS[k], s) else redis.call("DEL", KEYS[k]) end
    a = a + 4 + count
  end
  return 1
end

local function restore()
  for k = 1, #KEYS do
    local s = load(KEYS[k])
    local day = tonumber(ARGV[3 * k - 1])
    roll(s)
    if s.day == day then s.day_spent = math.max(s.day_spent, tonumber(ARGV[3 * k])) end
    if s.month == month_of(day) then s.month_spent = math.max(s.month_spent, tonumber(ARGV[3 * k + 1])) end
    save(KEYS[k], s)
  end
  return #KEYS
end

local function beat()
  redis.call("ZADD", KEYS[1], int(now + tonumber(ARGV[3])), ARGV[2])
  redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", int(now))
  local ttl, a = tonumber(ARGV[4]), 5
  for k = 2, #KEYS, 2 do
    local returned = 0
    local count = tonumber(ARGV[a])
    for m = a + 1, a + count do
      if redis.call("ZADD", KEYS[k], int(now + ttl), ARGV[m]) == 1 then returned = returned + held_by(ARGV[m]) end
    end
    redis.call("PEXPIRE", KEYS[k], int(math.ceil(ttl / 1000) + 1000))
    if returned > 0 then
      local s = load(KEYS[k + 1])
      roll(s)
      s.held = s.held + returned
      save(KEYS[k + 1], s)
    end
    a = a + count + 1
  end
  return redis.call("ZCARD", KEYS[1])
end

local operations = {reserve = reserve, settle = settle, restore = restore, beat = beat}
return operations[ARGV[1]]()

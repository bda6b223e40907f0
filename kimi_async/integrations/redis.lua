-- A shared quota in Redis: kimi_async/middleware/rate_limit/shared/ledger.py, line by line. Change both.
-- KEYS[1]: the quota. ARGV[1]: the message as JSON. Answers as JSON; an empty table may come out as {} or [].
-- Numbers are doubles: `0 - x` and never `-x`, which for 0 is "-0".

local SPAN, BUCKET, LOOK, TTL, GRACE, GAP, RETURN, BURST = 60000, 100, 250, 3000, 3000, 1500, 1500, 6000
local PACE, FIRST_PACE, MARGIN, MARGIN_MOST, CALM = 1.2, 1.04, 300, 2000, 120000
local SLACK, STRANGER, SILENCE, STARVED, BEAT, LATE = 150, 1500, 90000, 70, 1000, 400
local PROBES, REGROW, DAY, DAY_BUCKET, FAIR_EVERY, SLOW_START = 4000, 120000, 86400000, 900000, 8, 8.0
local TRY_SOON, TRY_LATE = 20000, 960000
local KEEP = 93600000

local floor, ceil, max, min = math.floor, math.ceil, math.max, math.min

local function fdiv(a, b) return floor(a / b) end

local m = cjson.decode(ARGV[1])
local id = m.member
local seq, seen, epoch, mono = m.seq or 0, m.seen or 0, m.epoch or 0, m.mono or 0
local leave, want, waiting = m.leave or 0, m.want or {}, m.waiting or 0
local conf = m.conf or {0, 0, 0, 0}

local raw
if m.now and m.now > 0 then
  raw = m.now
else
  local time = redis.call('TIME')
  raw = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

local packed = redis.call('GET', KEYS[1])
local s
if packed then
  s = cmsgpack.unpack(packed)
else
  s = {
    epoch = 0, clock = 0, raw = 0, born = 0, grace = 0, gate = 0, margin = MARGIN, margin_at = 0, over = 0, tat = 0,
    tokens_tat = 0, turn = 0, soft = 0, steady = 0, told = {0, 0, 0, 0}, how = {0, 0, 0, 0}, share = 0, share_at = 0,
    trying = 0, try_at = 0, step = 1, pause = TRY_SOON, count = 0, tokens = 0, window = {}, day = {}, day_tokens = 0,
    members = {},
  }
end
local W = s.window -- bucket, requests, tokens, bucket, …
local given = {0, 0, 0, 0}

local function regard()
  given = {0, 0, 0, 0}
  for _, p in pairs(s.members) do
    for which = 1, 4 do
      local c = p.conf[which]
      if c > 0 and (given[which] == 0 or c < given[which]) then given[which] = c end
    end
  end
end

local function size()
  local n = 0
  for _ in pairs(s.members) do n = n + 1 end
  return n
end

local function tick(me)
  local step = max(0, raw - s.raw)
  s.raw = raw
  local count = size()
  local cut_off = GAP < step and step < SILENCE and count > (me and 1 or 0)
  if me then
    if mono >= me.mono then
      step = min(step, max(0, me.seen + mono - me.mono + SLACK - s.clock))
    else
      step = min(step, STRANGER)
    end
  elseif count > 0 and step < SILENCE then
    step = min(step, STRANGER)
  end
  s.clock = s.clock + step
  if cut_off then s.grace = max(s.grace, s.clock + RETURN) end
end

local function expire(now)
  if s.margin > MARGIN and now - s.margin_at > CALM then
    s.margin, s.margin_at = max(MARGIN, fdiv(s.margin * 3, 4)), now
  end
  local gone, n = 0, #W
  while gone < n and W[gone + 1] + BUCKET + SPAN + s.margin <= now do
    s.count = s.count - W[gone + 2]
    s.tokens = s.tokens - W[gone + 3]
    gone = gone + 3
  end
  if gone > 0 then
    for i = 1, n do W[i] = W[i + gone] end
  end
  local d = s.day
  while #d > 0 and d[1][1] + DAY_BUCKET + DAY <= now do
    s.day_tokens = s.day_tokens - d[1][2]
    table.remove(d, 1)
  end
end

local function add(at, count, tokens, now)
  local bucket = fdiv(at, BUCKET) * BUCKET
  if bucket + BUCKET + SPAN + s.margin > now then
    local index = #W
    while index > 0 and W[index - 2] > bucket do index = index - 3 end
    if index > 0 and W[index - 2] == bucket then
      W[index - 1] = W[index - 1] + count
      W[index] = W[index] + tokens
    else
      for i = #W, index + 1, -1 do W[i + 3] = W[i] end
      W[index + 1], W[index + 2], W[index + 3] = bucket, count, tokens
    end
    s.count = s.count + count
    s.tokens = s.tokens + tokens
  end
  if tokens ~= 0 then
    bucket = fdiv(at, DAY_BUCKET) * DAY_BUCKET
    local d = s.day
    if #d > 0 and d[#d][1] >= bucket then
      d[#d][2] = d[#d][2] + tokens
    else
      d[#d + 1] = {bucket, tokens}
    end
    s.day_tokens = s.day_tokens + tokens
  end
end

local function limit_of(which)
  local limit = s.told[which]
  if given[which] > 0 and (limit == 0 or given[which] < limit) then limit = given[which] end
  return limit
end

local function unpace(count)
  local limit = limit_of(2)
  if limit > 0 then s.tat = s.tat - count * SPAN / (limit * PACE) end
end

local function room_at(which, excess, now)
  if excess <= 0 then return now end
  for i = 1, #W, 3 do
    excess = excess - W[i + which]
    if excess <= 0 then return W[i] + BUCKET + SPAN + s.margin end
  end
  return now + SPAN
end

local function rpm_of(now)
  local limit = limit_of(2)
  if limit == 0 then return 0 end
  if s.share > 0 then
    local grown = s.share + fdiv((limit - s.share) * (now - s.share_at), REGROW)
    if grown < limit then return max(1, grown) end
    s.share = 0
  end
  if s.trying > 0 then return limit + s.step end
  return limit
end

local function slots_of()
  local limit = limit_of(1)
  if limit == 0 and s.soft == 0 and s.steady == 0 then s.soft = SLOW_START end
  if s.soft > 0 then
    if limit > 0 and s.soft >= limit then
      s.soft = 0
      return limit
    end
    return max(1, floor(s.soft))
  end
  return limit
end

local function held_of()
  local held = 0
  for _, p in pairs(s.members) do held = held + p.held end
  return held
end

local function try(now)
  local told = s.told[2]
  if told == 0 or limit_of(2) < told or s.over > 0 then
    s.trying = 0
    return
  end
  if s.trying > 0 then
    if now - s.trying > SPAN + 5000 then
      s.told[2] = told + s.step
      s.how[2] = 3
      s.step = s.step * 2
      s.trying = 0
      s.pause = TRY_SOON
      s.try_at = now + TRY_SOON
    end
  elseif now >= s.try_at and s.count >= told and s.share == 0 then
    s.trying = now
  end
end

local function stretch(now)
  if now - s.margin_at > 1000 then
    s.margin, s.margin_at = min(MARGIN_MOST, fdiv(s.margin * 3, 2)), now
  end
end

local function slots_refused(limit)
  local held = held_of()
  if limit > 0 then s.told[1], s.how[1] = limit, 2 end
  local known = limit_of(1)
  if known == 0 or limit == 0 or held < 0.9 * known then
    s.soft = max(1, held - 1)
    s.steady = 1
  end
end

local function rpm_refused(limit, now)
  local known = limit_of(2)
  if limit > 0 then
    s.told[2], s.how[2] = limit, 2
  elseif known == 0 then
    s.told[2], s.how[2] = max(1, s.count - 1), 3
  end
  if s.trying > 0 then
    s.trying = 0
    s.step = 1
    s.pause = min(TRY_LATE, s.pause * 2)
  end
  s.try_at = now + s.pause
  known = limit_of(2)
  if s.count >= 0.9 * known then
    stretch(now)
  else
    s.share, s.share_at = max(1, fdiv(s.count * 9, 10)), now
  end
  s.tat = max(s.tat, now + BURST)
end

local function apply(item, now)
  local kind, age, first, hint = item[2], item[3], item[4], item[6]
  if kind == 'sent' then
    add(now - age, first, item[5], now)
    if first < 0 then unpace(0 - first) end
    return
  end
  if kind == 'good' then
    s.over = 0
    if s.soft > 0 then
      if s.steady == 1 then s.soft = s.soft + first / s.soft else s.soft = s.soft + first end
      s.soft = min(s.soft, 100000)
    end
    return
  end
  if kind == 'over' then
    s.over = min(s.over + 1, 2)
    s.soft = max(1, held_of())
    s.steady = 0
    s.gate = max(s.gate, now - age + max(hint, PROBES / 4 * 2 ^ s.over))
    return
  end
  if kind == 'slots' then
    slots_refused(first)
    if first == 0 or hint > 2000 then s.gate = max(s.gate, now - age + hint) end
    return
  end
  local rpm = limit_of(2)
  if kind == 'rpm' or (kind == 'some' and rpm > 0 and s.count >= 0.9 * rpm) then
    rpm_refused(first, now)
  elseif kind == 'tpm' then
    if first > 0 then
      s.told[3], s.how[3] = first, 2
    elseif limit_of(3) == 0 then
      s.told[3], s.how[3] = max(1, s.tokens), 3
    end
    if s.tokens >= 0.9 * limit_of(3) then stretch(now) end
    s.tokens_tat = max(s.tokens_tat, now + BURST)
  elseif kind == 'tpd' then
    if first > 0 then s.told[4], s.how[4] = first, 2 end
  else
    slots_refused(0)
  end
  s.gate = max(s.gate, now - age + hint)
end

local function grant(me, now)
  local grants = {}
  local n = #want
  if n == 0 then
    me.since, me.wants, me.tokens, me.priority = 0, 0, 0, 0
    return grants, BEAT, '', 0
  end
  if me.since == 0 then me.since = now end
  me.wants = max(waiting, n)
  me.tokens, me.priority = want[1][1], want[1][2]
  if now < s.grace then return grants, min(BEAT, s.grace - now), 'learning', s.grace - now end
  if now < s.gate then
    local reason = (s.over > 0 and s.gate - now <= PROBES) and 'overloaded' or 'gate'
    return grants, max(STARVED, min(BEAT, s.gate - now)), reason, s.gate - now
  end
  local by_age = s.turn % FAIR_EVERY == FAIR_EVERY - 1
  local ahead, ahead_tokens, lining = 0, 0, 1
  for name, other in pairs(s.members) do
    if name ~= id and other.wants > 0 and now <= other.due + LATE then
      lining = lining + 1
      local older = other.since < me.since or (other.since == me.since and name < id)
      local before
      if by_age or other.priority == me.priority then before = older else before = other.priority > me.priority end
      if before then
        ahead = ahead + 1
        ahead_tokens = ahead_tokens + other.tokens
      end
    end
  end
  local rpm, tpm, tpd, slots = rpm_of(now), limit_of(3), limit_of(4), slots_of()
  local held, most = held_of(), n
  if lining > 1 and slots > 0 then most = min(most, max(1, fdiv(slots - held, lining))) end
  if s.over > 0 then most = 1 end
  local pace = now - s.born < SPAN + 5000 and FIRST_PACE or PACE
  local interval = rpm > 0 and SPAN / (rpm * pace) or 0
  local again, reason, wait, broke = BEAT, '', 0, false
  for index = 1, most do
    local tokens = want[index][1]
    if slots > 0 and held + ahead >= slots then
      reason = held >= slots and 'concurrency' or 'turn'
      again = (held > me.held or s.soft > 0) and 100 or BEAT
      broke = true
      break
    end
    local at = now
    if rpm > 0 then
      at = max(at, s.tat - BURST + ahead * interval)
      at = max(at, room_at(1, s.count + 1 + ahead - rpm, now))
      if at > now then reason = 'rpm' end
    end
    if tpm > 0 and tokens > 0 then
      local soonest = max(s.tokens_tat - BURST, room_at(2, s.tokens + tokens + ahead_tokens - tpm, now))
      if soonest > at then at, reason = soonest, 'tpm' end
    end
    if tpd > 0 and tokens > 0 and s.day_tokens + tokens > tpd then
      at, reason = (#s.day > 0 and s.day[1][1] or now) + DAY_BUCKET + DAY, 'tpd'
    end
    local delay = ceil(at - now)
    if delay > LOOK then
      wait = delay
      again = max(STARVED, min(lining == 1 and BEAT or LOOK, delay - LOOK + 10))
      broke = true
      break
    end
    reason = ''
    local bucket = fdiv(floor(at), BUCKET) * BUCKET
    add(bucket, 1, tokens, now)
    me.last[#me.last + 1] = {bucket, tokens}
    grants[#grants + 1] = max(0, delay)
    held = held + 1
    me.held = me.held + 1
    if rpm > 0 then s.tat = max(s.tat, now) + interval end
    if tpm > 0 then s.tokens_tat = max(s.tokens_tat, now) + tokens * SPAN / (tpm * pace) end
    if lining > 1 then s.turn = s.turn + 1 end
  end
  if not broke and most < n then
    reason, again = (s.over > 0 and 'overloaded' or 'turn'), STARVED
  end
  if s.over > 0 and #grants > 0 then s.gate = max(s.gate, now + 2000) end
  if #grants == n then
    if me.wants == n then
      me.since, me.wants, me.tokens, me.priority = 0, 0, 0, 0
    else
      me.since, again, reason = now, 0, 'turn'
    end
  elseif #grants > 0 then
    me.since = now
    me.tokens, me.priority = want[#grants + 1][1], want[#grants + 1][2]
  end
  return grants, again, reason, wait
end

local function answer(state)
  local now = s.clock
  local limits, sources = {}, {}
  for which = 1, 4 do
    local limit = limit_of(which)
    limits[which] = limit
    if limit == 0 then
      sources[which] = 0
    elseif limit == s.told[which] then
      sources[which] = s.how[which]
    else
      sources[which] = 1
    end
  end
  local me = s.members[id]
  local rank, lined, lining = 0, 0, 0
  for name, p in pairs(s.members) do
    lined = lined + p.wants
    if p.wants > 0 then lining = lining + 1 end
    if me and (p.born < me.born or (p.born == me.born and name < id)) then rank = rank + 1 end
  end
  return {
    state = state, epoch = s.epoch, grants = {}, again = BEAT, reason = '', wait = 0, limits = limits, sources = sources,
    allowed = {slots_of(), rpm_of(now)}, used = {held_of(), s.count, s.tokens, s.day_tokens}, waiting = lined,
    members = size(), rank = rank, lining = lining, gate = max(0, s.gate - now, s.grace - now), overloaded = s.over,
  }
end

local function finish(what, keep)
  if keep then redis.call('SET', KEYS[1], cmsgpack.pack(s), 'PX', KEEP) end
  return cjson.encode(what)
end

if s.epoch == 0 then
  if leave > 0 then return finish(answer('bye'), false) end
  s.epoch = m.seed
  s.clock, s.raw, s.born = raw, raw, raw
  s.tat, s.tokens_tat = raw + BURST, raw + BURST
  s.try_at = raw + TRY_SOON
  if epoch > 0 then s.grace = raw + GRACE end
end
local me = s.members[id]
tick(me)
local now = s.clock
local dead = {}
for name, p in pairs(s.members) do
  if name ~= id and now - p.seen > TTL then dead[#dead + 1] = name end
end
for _, name in ipairs(dead) do s.members[name] = nil end
expire(now)
regard()
if leave == 2 then
  local said = answer('bye')
  local peers = {}
  for name, p in pairs(s.members) do
    peers[#peers + 1] = {name, p.name, p.held, p.wants, max(0, now - p.seen)}
  end
  said.peers = peers
  return finish(said, false)
end
if epoch ~= 0 and epoch ~= s.epoch then
  if leave > 0 then return finish(answer('bye'), true) end
  if now - s.born < SPAN then s.grace = max(s.grace, now + GRACE) end
  return finish(answer('register'), true)
end
if not me then
  me = {
    name = '', seen = 0, mono = 0, held = 0, seq = 0, since = 0, priority = 0, tokens = 0, wants = 0, due = 0, born = now,
    conf = {0, 0, 0, 0}, last = {},
  }
  if leave == 0 then s.members[id] = me end
elseif seq <= me.seq then
  return finish(answer('late'), true)
end
if #me.last > 0 and seen ~= me.seq then
  for _, each in ipairs(me.last) do
    add(each[1], -1, 0 - each[2], now)
    unpace(1)
  end
end
me.last = {}
local before = me.seq
me.seq, me.seen, me.mono, me.held = seq, now, mono, m.held or 0
me.name, me.conf = m.name or '', conf
regard()
for _, item in ipairs(m.items or {}) do
  if item[1] > before then apply(item, now) end
end
if leave > 0 then
  s.members[id] = nil
  regard()
  return finish(answer('bye'), true)
end
try(now)
local grants, again, reason, wait = grant(me, now)
me.due = now + again
local said = answer('ok')
said.grants, said.again, said.reason, said.wait = grants, again, reason, wait
return finish(said, true)

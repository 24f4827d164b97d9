#!lua flags=allow-oom
-- recover: put tasks whose lease has ended back to due, at their old place, with one crash more.
-- KEYS  1 due  2 running  3 quarantine
-- ARGV  1 root  2 limit  3 the caller's idea of now in ms, or '+inf' for all leases: only where no holder can be alive
--       4 so many ms ahead that no lease ends there: one that does is of a time before the clock was set back
-- Returns {now µs, how many, end of the next lease ms or false}
--   The claim number is dropped from the record, so whoever held the lease settles nothing any more. Wakes who waits.
--   A crash of a task that was performed alone is its own: then `blamed` counts it as well.
local due, running, quarantine = unpack(KEYS)
local root, limit, bound, far = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)

local function one_more(record, field)
  if type(redis.pcall('HINCRBY', record, field, 1)) ~= 'number' then redis.call('HSET', record, field, 1) end
end

local function put_back(name)
  local record = root .. 'task:' .. name
  local owner, id = string.match(name, '^([^/]+)/(.+)$')
  local is = redis.pcall('HMGET', record, 'uid', 'claim', 'alone')
  if is.err or not is[1] or not owner then
    redis.call('ZADD', quarantine, now, name)
  else
    local at = redis.pcall('ZSCORE', root .. 'user:' .. owner, id)
    local sound = type(at) == 'string' and tonumber(at) >= 0 and tonumber(at) < 2 ^ 53
    redis.call('ZADD', due, sound and at or now, name)
    one_more(record, 'crashes')
    if is[3] and is[3] == is[2] then one_more(record, 'blamed') end
    redis.call('HDEL', record, 'claim', 'holder', 'alone')
  end
  redis.call('ZREM', running, name)
end

local ended
if bound == '+inf' then
  ended = redis.call('ZRANGE', running, 0, limit - 1)
else
  -- A call that lay before a frozen server must not take what ended meanwhile, nor one that is the first after a step
  -- of the clock what only seems to have ended: hence the earlier of the two, and for what is far ahead the later.
  local before, beyond = math.min(now, bound), math.max(now, bound) + far
  ended = redis.call('ZRANGE', running, '-inf', before, 'BYSCORE', 'LIMIT', 0, limit)
  local above = '(' .. string.format('%.0f', beyond)
  local strange = redis.call('ZRANGE', running, above, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
  for _, name in ipairs(strange) do
    if #ended < tonumber(limit) then ended[#ended + 1] = name end
  end
end
for _, name in ipairs(ended) do put_back(name) end
if #ended > 0 then redis.pcall('PUBLISH', root .. 'wake', string.sub(due, #root + #'due:' + 1)) end
return {string.format('%.0f', now_us), #ended, redis.call('ZRANGE', running, 0, 0, 'WITHSCORES')[2] or false}

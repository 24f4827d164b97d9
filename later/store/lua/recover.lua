#!lua flags=allow-oom
-- recover: put tasks whose lease has ended back to due, at their old place, with one crash more.
-- KEYS  1 due  2 running  3 quarantine
-- ARGV  1 root  2 limit  3 the caller's idea of now in ms, or '+inf' for all leases: only where no holder can be alive
-- Returns {now µs, how many, end of the next lease ms or false}
--   The claim number is dropped from the record, so whoever held the lease settles nothing any more. Wakes who waits.
local due, running, quarantine = unpack(KEYS)
local root, limit, bound = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
-- A call that lay before a frozen server must not take what ended meanwhile: the holders were frozen out as well.
if bound ~= '+inf' then bound = math.min(now, bound) end

local ended = redis.call('ZRANGE', running, '-inf', bound, 'BYSCORE', 'LIMIT', 0, limit)
for _, name in ipairs(ended) do
  local record = root .. 'task:' .. name
  local owner, id = string.match(name, '^([^/]+)/(.+)$')
  local uid = redis.pcall('HGET', record, 'uid')
  if type(uid) ~= 'string' or not owner then
    redis.call('ZADD', quarantine, now, name)
  else
    local at = redis.pcall('ZSCORE', root .. 'user:' .. owner, id)
    redis.call('ZADD', due, type(at) == 'string' and at or now, name)
    if type(redis.pcall('HINCRBY', record, 'crashes', 1)) ~= 'number' then redis.call('HSET', record, 'crashes', 1) end
    redis.call('HDEL', record, 'claim', 'holder')
  end
  redis.call('ZREM', running, name)
end
if #ended > 0 then redis.pcall('PUBLISH', root .. 'wake', string.sub(due, #root + #'due:' + 1)) end
return {string.format('%.0f', now_us), #ended, redis.call('ZRANGE', running, 0, 0, 'WITHSCORES')[2] or false}

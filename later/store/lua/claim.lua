#!lua flags=allow-oom
-- claim: take due tasks of one queue under a lease, oldest first.
-- KEYS  1 due  2 running  3 claims  4 quarantine
-- ARGV  1 root of the partition's keys  2 limit  3 lease ms  4 holder
-- Returns {now µs, claim number, due ms of the next task that stays or false, {name, due ms, {field, value, …}}, …}
--   A name whose record cannot be read goes to quarantine and is not returned.
--   The number only grows, also when a failover rolls the counter back: max(last + 1, now in µs). What is not a
--   number, or is beyond those that Lua can count, is not believed.
local due, running, claims, quarantine = unpack(KEYS)
local root, limit, lease, holder = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local ready = redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
local number = '0'
local answer = {string.format('%.0f', now_us), number, false}

if #ready > 0 then
  local last = redis.pcall('GET', claims)
  last = type(last) == 'string' and tonumber(last) or 0
  if not (last < 2 ^ 53) then last = 0 end
  number = string.format('%.0f', math.max(last + 1, now_us))
  redis.call('SET', claims, number)
  answer[2] = number
end
for i = 1, #ready, 2 do
  local name, record = ready[i], root .. 'task:' .. ready[i]
  local fields = redis.pcall('HGETALL', record)
  if fields.err or #fields == 0 or not string.find(name, '^[^/]+/.') then
    redis.call('ZADD', quarantine, now, name)
  else
    redis.call('ZADD', running, now + lease, name)
    redis.call('HSET', record, 'claim', number, 'holder', holder)
    answer[#answer + 1] = {name, ready[i + 1], fields}
  end
  redis.call('ZREM', due, name)
end
answer[3] = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or false
return answer

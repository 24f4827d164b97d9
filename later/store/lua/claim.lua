#!lua flags=allow-oom
-- claim: take due tasks of one queue under a lease, oldest first.
-- KEYS  1 due  2 running  3 claims  4 quarantine
-- ARGV  1 root of the partition's keys  2 limit  3 lease ms  4 holder  5 most fields of a record  6 most bytes of one
-- Returns {now µs, claim number, due ms of the next task that stays or false, {name, due ms, {field, value, …}}, …}
--   In place of the fields there is a word of why, where the name went to quarantine: its record is no hash of fields
--   within the bounds, or it is due at no moment.
--   The number only grows, also when a failover rolls the counter back: max(last + 1, now in µs). What is not a
--   number, or is beyond those that Lua can count, is not believed.
local due, running, claims, quarantine = unpack(KEYS)
local root, limit, lease, holder, most_fields, most_bytes = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local ready = redis.call('ZRANGE', due, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit, 'WITHSCORES')
local number = '0'
local answer = {string.format('%.0f', now_us), number, false}

local function read(name, due_ms, record)
  if not string.find(name, '^[^/]+/.') then return 'no name of a task' end
  if not (tonumber(due_ms) >= 0) then return 'due at no moment' end
  local size = redis.pcall('HLEN', record)
  if type(size) ~= 'number' then return 'no hash' end
  if size == 0 then return 'no record' end
  if size > tonumber(most_fields) then return 'too many fields' end
  local fields = redis.call('HGETALL', record)
  for _, value in ipairs(fields) do
    if #value > tonumber(most_bytes) then return 'too large' end
  end
  return fields
end

redis.call('ZCARD', quarantine)  -- anything but a set fails here, before the first change
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
  local fields = read(name, ready[i + 1], record)
  if type(fields) == 'string' then
    redis.call('ZADD', quarantine, now, name)
  else
    redis.call('ZADD', running, now + lease, name)
    redis.call('HSET', record, 'claim', number, 'holder', holder)
  end
  answer[#answer + 1] = {name, ready[i + 1], fields}
  redis.call('ZREM', due, name)
end
answer[3] = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2] or false
return answer

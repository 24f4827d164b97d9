#!lua flags=allow-oom
-- move: change a task because its owner asks: schedule, snooze, execute, retry, pause, resume, update, cancel.
-- KEYS  1 record  2 user  3 created  4 failed  5 outbox  6 quarantine
-- ARGV  1 root  2 name  3 id  4 status to move to, or '' to stay  5 due ms, or ''
--       6 the states it may be in, each with a space before and after  7 version, or ''  8 wake channel
--       9 changes of the record: JSON [field, value, …], or ''  10 fields to drop: JSON [field, …], or ''
-- Returns {now µs, 'moved' | 'withdrawn' | 'absent' | 'state' | 'version' | 'untimed' | 'ending', status,
--   lease end ms or false}
--   withdrawn: it is running; its settlement will end it as cancelled
--   ending: its owner has asked for its end while it was running, and will have it
--   untimed: it has no time to go back to, so it would wait for ever
--   Out of quarantine a task simply goes: nobody could read what the outbox would say of it.
local record, user, created, failed, outbox, quarantine = unpack(KEYS)
local root, name, id, to, at, states, version, channel, changes, drop = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local stamp = string.format('%.0f', now_us)

local is = redis.pcall('HMGET', record, 'queue', 'version', 'cancel')
local queue = is[1] or ''
local due, running = root .. 'due:' .. queue, root .. 'running:' .. queue
local sets = {pending = due, created = created, failed = failed}
local lease = redis.call('ZSCORE', running, name)
local status = lease and 'running'
for state, set in pairs(sets) do
  if is[1] and not status and redis.call('ZSCORE', set, name) then status = state end
end

if not status and to == 'cancelled' and redis.call('ZSCORE', quarantine, name) then
  redis.call('UNLINK', record)
  redis.pcall('ZREM', user, id)
  redis.call('ZREM', quarantine, name)
  return {stamp, 'moved', to, false}
end
if not status then return {stamp, 'absent', '', false} end
if version ~= '' and version ~= (is[2] or '1') then return {stamp, 'version', status, lease} end
if not string.find(states, ' ' .. status .. ' ', 1, true) then return {stamp, 'state', status, lease} end
if status == 'running' then
  if to ~= 'cancelled' then return {stamp, 'state', status, lease} end
  redis.call('HSET', record, 'cancel', 1)
  return {stamp, 'withdrawn', status, lease}
end
if is[3] and to ~= 'cancelled' then return {stamp, 'ending', status, false} end

if to == 'cancelled' then
  local was = redis.pcall('ZSCORE', user, id)
  redis.call('XADD', outbox, '*', 'name', name, 'status', to, 'at', now, 'entry',
    cjson.encode({due = type(was) == 'string' and was or ''}), unpack(redis.call('HGETALL', record)))
  redis.call('ZREM', sets[status], name)
  redis.call('DEL', record)
  redis.pcall('ZREM', user, id)
  return {stamp, 'moved', to, false}
end
if to == 'pending' and at == '' then
  at = redis.call('ZSCORE', user, id)
  if not at or at == 'inf' then return {stamp, 'untimed', status, false} end
end
redis.call('HINCRBY', record, 'version', is[2] and 1 or 2)
redis.call('HSET', record, 'updated', now)
if changes ~= '' then redis.call('HSET', record, unpack(cjson.decode(changes))) end
if drop ~= '' then redis.call('HDEL', record, unpack(cjson.decode(drop))) end
if to == 'pending' then
  -- From 0: what is due at no moment must keep nobody asleep.
  local head = redis.call('ZRANGE', due, 0, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
  redis.call('ZADD', user, at, id)
  redis.call('ZADD', due, at, name)
  if not head or tonumber(at) < tonumber(head) then redis.pcall('PUBLISH', channel, queue) end
elseif to == 'created' then
  redis.call('ZADD', created, now, name)
end
if to ~= '' and to ~= status then redis.call('ZREM', sets[status], name) end
return {stamp, 'moved', to == '' and status or to, false}

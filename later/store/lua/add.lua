#!lua
-- add: keep a task, new or as it was elsewhere, unless its id is taken.
-- KEYS  1 record  2 user  3 created  4 due  5 failed  6 outbox  7 running
-- ARGV  1 name  2 id  3 state: created, pending or failed  4 due ms, or ''
--       5 since when it is in that state, or '' for a new task  6 wake channel  7 queue  8 outbox limit
--       9… the record: field, value, …
-- Returns {now µs, 'added' | 'replaced' | 'kept' | 'taken' | 'ending' | 'full'}
--   replaced: a failed task had the id; its failure is in the outbox since it failed
--   kept: a live task has the id and the same spec and queue; nothing is changed. Then as well, each or false:
--     since when it is created, its lease end ms, its entry of the user list, and {field, value, …}
--   taken: also by a record that is in no state, and so would never be performed
--   ending: the owner has asked for the end of the task that has the id
--   What was elsewhere replaces nothing: a record with its uid is it (kept), every other one has taken the id.
local record, user, created, due, failed, outbox, running = unpack(KEYS)
local name, id, state, at, since, channel, queue, limit = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = 'added'

if redis.call('EXISTS', record) == 1 then
  local given = {}
  for i = 9, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
  local kept = redis.pcall('HMGET', record, 'spec', 'queue', 'cancel', 'uid')
  if since ~= '' then
    return {string.format('%.0f', now), kept[4] == given.uid and 'kept' or 'taken'}
  elseif redis.call('ZSCORE', failed, name) then
    answer = 'replaced'
  else
    local held, lease = redis.call('ZSCORE', created, name), redis.call('ZSCORE', running, name)
    local live = held or lease or redis.call('ZSCORE', due, name)
    local same = live and kept[1] == given.spec and kept[2] == given.queue
    answer = kept[3] and 'ending' or same and 'kept' or 'taken'
    if answer ~= 'kept' then return {string.format('%.0f', now), answer} end
    local fields = redis.call('HGETALL', record)
    return {string.format('%.0f', now), answer, held, lease, redis.pcall('ZSCORE', user, id), fields}
  end
end
if redis.call('XLEN', outbox) >= tonumber(limit) then
  return {string.format('%.0f', now), 'full'}
end

-- Whatever could fail does so before the first change.
-- From 0: what is due at no moment must keep nobody asleep.
local head = redis.call('ZRANGE', due, 0, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
redis.call('ZCARD', user)
redis.call('ZCARD', created)
redis.call('ZCARD', failed)
if answer == 'replaced' then redis.call('DEL', record) end
redis.call('HSET', record, unpack(ARGV, 9))
redis.call('ZADD', user, at == '' and '+inf' or at, id)
if state == 'pending' then
  redis.call('ZADD', due, at, name)
  if not head or tonumber(at) < tonumber(head) then redis.pcall('PUBLISH', channel, queue) end
else
  redis.call('ZADD', state == 'failed' and failed or created, since == '' and math.floor(now / 1000) or since, name)
end
if answer == 'replaced' then redis.call('ZREM', failed, name) end
return {string.format('%.0f', now), answer}

#!lua
-- add: keep a new task, unless its id is taken.
-- KEYS  1 record  2 user  3 created  4 due  5 failed  6 outbox  7 running
-- ARGV  1 name  2 id  3 due ms, or '' for created  4 wake channel  5 queue  6 outbox limit
--       7… the record: field, value, …
-- Returns {now µs, 'added' | 'replaced' | 'kept' | 'taken' | 'ending' | 'full'}
--   replaced: a failed task had the id; its failure is in the outbox since it failed
--   kept: a live task has the id and the same spec and queue; nothing is changed. Then as well, each or false:
--     since when it is created, its lease end ms, its entry of the user list, and {field, value, …}
--   taken: also by a record that is in no state, and so would never be performed
--   ending: the owner has asked for the end of the task that has the id
local record, user, created, due, failed, outbox, running = unpack(KEYS)
local name, id, at, channel, queue = unpack(ARGV)
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = 'added'

if redis.call('EXISTS', record) == 1 then
  if redis.call('ZSCORE', failed, name) then
    answer = 'replaced'
  else
    local given = {}
    for i = 7, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
    local kept = redis.pcall('HMGET', record, 'spec', 'queue', 'cancel')
    local since, lease = redis.call('ZSCORE', created, name), redis.call('ZSCORE', running, name)
    local live = since or lease or redis.call('ZSCORE', due, name)
    local same = live and kept[1] == given.spec and kept[2] == given.queue
    answer = kept[3] and 'ending' or same and 'kept' or 'taken'
    if answer ~= 'kept' then return {string.format('%.0f', now), answer} end
    local fields = redis.call('HGETALL', record)
    return {string.format('%.0f', now), answer, since, lease, redis.pcall('ZSCORE', user, id), fields}
  end
end
if redis.call('XLEN', outbox) >= tonumber(ARGV[6]) then
  return {string.format('%.0f', now), 'full'}
end

-- Whatever could fail does so before the first change.
local head = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')[2]
redis.call('ZCARD', user)
redis.call('ZCARD', created)
if answer == 'replaced' then redis.call('DEL', record) end
redis.call('HSET', record, unpack(ARGV, 7))
if at == '' then
  redis.call('ZADD', user, '+inf', id)
  redis.call('ZADD', created, math.floor(now / 1000), name)
else
  redis.call('ZADD', user, at, id)
  redis.call('ZADD', due, at, name)
  if not head or tonumber(at) < tonumber(head) then redis.pcall('PUBLISH', channel, queue) end
end
if answer == 'replaced' then redis.call('ZREM', failed, name) end
return {string.format('%.0f', now), answer}

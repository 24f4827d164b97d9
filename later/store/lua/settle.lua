#!lua flags=allow-oom
-- settle: record what came of claimed tasks of one queue. Each item stands for itself; a stale one changes nothing.
-- KEYS  1 due  2 running  3 failed  4 quarantine  5 outbox
-- ARGV  1 root, then for each item
--       name · claim number · status for the outbox, or '' · next due ms, or '' ·
--       changes of the record: JSON [field, value, …], or '' · what the outbox adds to the record: JSON, or ''
-- Returns {now µs, 'done' | 'already' | 'stale' | 'gone' | 'quarantined' | 'damaged', …}, one for each item
--   already: this claim was settled before and the task has not been claimed since
--   damaged: the set it would go to is none, so nothing was changed
--   A task whose owner asked for its end does not get a next time: it ends as cancelled.
--   Wakes who waits for the queue when a next time becomes its head.
local due, running, failed, quarantine, outbox = unpack(KEYS)
local root = ARGV[1]
local queue = string.sub(due, #root + #'due:' + 1)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local answer = {string.format('%.0f', now_us)}
redis.call('XLEN', outbox)  -- anything but a stream fails here, before the first change

local function is_set(key) return type(redis.pcall('ZCARD', key)) == 'number' end

local function settle(name, number, status, next_due, changes, entry)
  local record = root .. 'task:' .. name
  local owner, id = string.match(name, '^([^/]+)/(.+)$')
  local fields = redis.pcall('HGETALL', record)
  if fields.err or not owner or #fields > 1000 then
    if not is_set(quarantine) then return 'damaged' end
    redis.call('ZADD', quarantine, now, name)
    redis.call('ZREM', running, name)
    return 'quarantined'
  end
  if #fields == 0 then return 'gone' end
  local is = {}
  for i = 1, #fields, 2 do is[fields[i]] = fields[i + 1] end
  if is.claim ~= number then return 'stale' end
  if not redis.call('ZSCORE', running, name) then return 'already' end

  local user = root .. 'user:' .. owner
  if is.cancel and status ~= 'completed' then status, next_due = 'cancelled', '' end
  if next_due ~= '' or status == 'failed' then
    if not is_set(next_due ~= '' and due or failed) then return 'damaged' end
    if changes ~= '' then redis.call('HSET', record, unpack(cjson.decode(changes))) end
    if next_due ~= '' then
      -- From 0: what is due at no moment must keep nobody asleep.
      local head = redis.call('ZRANGE', due, 0, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')[2]
      redis.call('ZADD', due, next_due, name)
      redis.pcall('ZADD', user, next_due, id)
      if not head or tonumber(next_due) < tonumber(head) then redis.pcall('PUBLISH', root .. 'wake', queue) end
    else
      redis.call('ZADD', failed, now, name)
    end
    redis.call('ZREM', running, name)
  else
    redis.call('ZREM', running, name)
    redis.call('DEL', record)
    redis.pcall('ZREM', user, id)
  end
  if status ~= '' then
    redis.call('XADD', outbox, '*', 'name', name, 'status', status, 'at', now, 'entry', entry, unpack(fields))
  end
  return 'done'
end

for i = 2, #ARGV, 6 do
  answer[#answer + 1] = settle(unpack(ARGV, i, i + 5))
end
return answer

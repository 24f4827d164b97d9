#!lua flags=allow-oom
-- examine: read all that there is about some names, each as of one moment, or mend what was found wrong with them.
-- KEYS  1 created  2 failed  3 quarantine  4 claims
-- ARGV  1 root of the partition's keys  2 most fields of a record  3 most bytes of one
--       4 '=' and the queue of the set that the names come from; '' if it is of any queue, '*' if from no set
--       5 that set, or ''
--       6 what to mend: JSON, for each name [what it was mended from, [change, …]], or ''; then the fourth is '*'
--       7… names
-- Returns {now µs, last claim number or false, …}, for each name what was found or, when mending, 'mended' | 'changed'
--   Found: {record, its score in created, failed, quarantine, due, running, in its owner's list, in that set}
--     The record is {field, value, …} or a word of why there is none. A name out of a set whose record says that it
--     belongs there gives false: the record is looked at for itself.
--   changed: it is not what the changes were made for any more; nothing was done
--   A change is ['add', set, score], ['remove', set], ['release'] from its claim or ['raise', number] the last claim.
local created, failed, quarantine, claims = unpack(KEYS)
local root, most_fields, most_bytes, wanted, via, mending = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local last = redis.pcall('GET', claims)
last = type(last) == 'string' and last
local answer = {string.format('%.0f', now_us), last}
most_fields, most_bytes = tonumber(most_fields), tonumber(most_bytes)

local function read(record)
  local size = redis.pcall('HLEN', record)
  if type(size) ~= 'number' then return 'no hash', false end
  if size == 0 then return 'no record', false end
  local queue = redis.call('HGET', record, 'queue')
  if size > most_fields then return 'too many fields', queue end
  local fields = redis.call('HGETALL', record)
  for _, value in ipairs(fields) do
    if #value > most_bytes then return 'too large', queue end
  end
  return fields, queue
end

local function score(set, member)
  local found = set and member and redis.pcall('ZSCORE', set, member)
  return type(found) == 'string' and found
end

local function belongs(record)
  if wanted == '*' then return false end
  if wanted == '' then return redis.call('EXISTS', record) == 1 end
  return redis.pcall('HGET', record, 'queue') == string.sub(wanted, 2)
end

local function places_of(name, queue)
  local owner, id = string.match(name, '^([^/]+)/(.+)$')
  return {
    created = {created, name}, failed = {failed, name}, quarantine = {quarantine, name},
    due = {queue and root .. 'due:' .. queue, name}, running = {queue and root .. 'running:' .. queue, name},
    user = {owner and root .. 'user:' .. owner, id}, via = {via ~= '' and via, name},
  }
end

local function find(record, places)
  local found = {record}
  for at, set in ipairs({'created', 'failed', 'quarantine', 'due', 'running', 'user', 'via'}) do
    found[at + 1] = score(unpack(places[set]))
  end
  return found
end

local function print_of(found)
  local words = {type(found[1]) == 'table' and table.concat(found[1], '\n') or found[1]}
  for at = 2, 8 do words[at] = found[at] or '' end
  return redis.sha1hex(table.concat(words, '\n'))
end

local function change(record, queue, places, verb, set, value)
  local key, member = unpack(places[set] or {})
  if verb == 'add' then
    redis.call('ZADD', key, value, member)
    if set == 'due' then redis.pcall('PUBLISH', root .. 'wake', queue) end
  elseif verb == 'remove' then
    redis.call('ZREM', key, member)
  elseif verb == 'release' then
    redis.call('HDEL', record, 'claim', 'holder')
  elseif verb == 'raise' then
    local number = tonumber(last) or 0
    if not (number >= 0 and number < 2 ^ 53) then number = 0 end
    last = string.format('%.0f', math.max(number, tonumber(set), now_us))
    redis.call('SET', claims, last)
  end
end

local mends = mending ~= '' and cjson.decode(mending)
for at = 7, #ARGV do
  local name, mend = ARGV[at], mends and mends[at - 6]
  local record = root .. 'task:' .. name
  if belongs(record) then
    answer[#answer + 1] = false
  else
    local fields, queue = read(record)
    local places = places_of(name, queue)
    local found = find(fields, places)
    if not mend then
      answer[#answer + 1] = found
    elseif mend[1] ~= '' and mend[1] ~= print_of(found) then
      answer[#answer + 1] = 'changed'
    else
      for _, words in ipairs(mend[2]) do change(record, queue, places, unpack(words)) end
      answer[#answer + 1] = 'mended'
    end
  end
end
return answer

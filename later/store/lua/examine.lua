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
--   A change is ['add', set, score], ['remove', set], ['release'] from its claim, ['raise', number] the last claim or
--   ['aside', type]: that set gets this name, unless it is of that type now.
local created, failed, quarantine, claims = unpack(KEYS)
local root, most_fields, most_bytes, wanted, via, mending = unpack(ARGV)
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local last = redis.pcall('GET', claims)
last = type(last) == 'string' and last
local answer = {string.format('%.0f', now_us), last}
most_fields, most_bytes = tonumber(most_fields), tonumber(most_bytes)

-- The sets of a partition are asked for their types once, as most are not there at all.
local is_set = {}
local function score(set, member)
  if not set or not member then return false end
  if is_set[set] == nil then is_set[set] = redis.call('TYPE', set).ok == 'zset' end
  return is_set[set] and redis.call('ZSCORE', set, member)
end

local function listed(user, id)
  local found = user and redis.pcall('ZSCORE', user, id)
  return type(found) == 'string' and found
end

local dues, runs, users = {}, {}, {}
local function key_of(memo, kind, name)
  if name and not memo[name] then memo[name] = root .. kind .. name end
  return name and memo[name]
end

local function read(record)
  local size = redis.pcall('HLEN', record)
  if type(size) ~= 'number' then return 'no hash', false end
  if size == 0 then return 'no record', false end
  if size > most_fields then return 'too many fields', redis.call('HGET', record, 'queue') end
  local fields, queue = redis.call('HGETALL', record), false
  for at = 1, #fields, 2 do
    if #fields[at + 1] > most_bytes then return 'too large', redis.call('HGET', record, 'queue') end
    if fields[at] == 'queue' then queue = fields[at + 1] end
  end
  return fields, queue
end

local function find(name, record)
  local fields, queue = read(record)
  local owner, id = string.match(name, '^([^/]+)/(.+)$')
  local due, running, user = key_of(dues, 'due:', queue), key_of(runs, 'running:', queue), key_of(users, 'user:', owner)
  local found = {
    fields, score(created, name), score(failed, name), score(quarantine, name), score(due, name), score(running, name),
    listed(user, id), via ~= '' and score(via, name),
  }
  return found, mending ~= '' and {
    created = created, failed = failed, quarantine = quarantine, due = due, running = running, user = user, via = via,
    queue = queue, id = id,
  }
end

local function belongs(record)
  if wanted == '*' then return false end
  if wanted == '' then return redis.call('EXISTS', record) == 1 end
  return redis.pcall('HGET', record, 'queue') == string.sub(wanted, 2)
end

local function print_of(found)
  local words = {type(found[1]) == 'table' and table.concat(found[1], '\n') or found[1]}
  for at = 2, 8 do words[at] = found[at] or '' end
  return redis.sha1hex(table.concat(words, '\n'))
end

local function change(name, record, places, verb, set, value)
  local member = set == 'user' and places.id or name
  if verb == 'add' then
    redis.call('ZADD', places[set], value, member)
    if set == 'due' then redis.pcall('PUBLISH', root .. 'wake', places.queue) end
  elseif verb == 'remove' then
    redis.call('ZREM', places[set], member)
  elseif verb == 'release' then
    redis.call('HDEL', record, 'claim', 'holder', 'alone')
  elseif verb == 'raise' then
    local number = tonumber(last) or 0
    if not (number >= 0 and number < 2 ^ 53) then number = 0 end
    last = string.format('%.0f', math.max(number, tonumber(set), now_us))
    redis.call('SET', claims, last)
  elseif verb == 'aside' then
    return redis.call('TYPE', via).ok ~= set and redis.pcall('RENAMENX', via, name) == 1
  end
  return true
end

local mends = mending ~= '' and cjson.decode(mending)
for at = 7, #ARGV do
  local name, record = ARGV[at], root .. 'task:' .. ARGV[at]
  if belongs(record) then
    answer[at - 4] = false
  else
    local found, places = find(name, record)
    local mend = mends and mends[at - 6]
    answer[at - 4] = found
    if mend then
      local done = mend[1] == '' or mend[1] == print_of(found)
      if done then
        for _, words in ipairs(mend[2]) do done = change(name, record, places, unpack(words)) and done end
      end
      answer[at - 4] = done and 'mended' or 'changed'
    end
  end
end
return answer

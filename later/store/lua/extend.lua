#!lua flags=allow-oom
-- extend: let leases that are still held end later.
-- KEYS  1 running
-- ARGV  1 root  2 lease ms  3 '1' if each is performed alone from now on, so that a crash is its own, else ''
--       4… name, claim number, …
-- Returns {now µs, 'kept' | 'cancel' | 'lost', …}, one for each name
local running, root, alone = KEYS[1], ARGV[1], ARGV[3]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local until_ms = math.floor(now_us / 1000) + ARGV[2]
local answer = {string.format('%.0f', now_us)}

for i = 4, #ARGV, 2 do
  local name, number = ARGV[i], ARGV[i + 1]
  local held = redis.pcall('HMGET', root .. 'task:' .. name, 'claim', 'cancel')
  if held[1] == number and redis.call('ZSCORE', running, name) then
    redis.call('ZADD', running, 'XX', until_ms, name)
    if alone == '1' then redis.call('HSET', root .. 'task:' .. name, 'alone', number) end
    answer[#answer + 1] = held[2] and 'cancel' or 'kept'
  else
    answer[#answer + 1] = 'lost'
  end
end
return answer

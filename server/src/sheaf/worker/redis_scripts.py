"""What the Redis queue does in one step each, as scripts: a job changes only in the hands of who holds it.

Keys of a queue called `sheaf`:

    sheaf:jobs:MODEL    stream; entries of jobs that wait or run, read by the group `workers`. An entry that
                        its consumer has left without a sign of life is of a job whose worker was lost.
    sheaf:later:MODEL   sorted set; jobs that pause before their next attempt, by the time that ends
    sheaf:job:ID        hash; one job
    sheaf:key:KEY       string; the job of an idempotency key
    sheaf:dead          sorted set; dead letters by the time of their death
    sheaf:models        set; models that jobs have named
"""

from __future__ import annotations

GROUP = "workers"

#: Begins every script. ARGV[1] is the prefix, ARGV[2] the seconds that outcomes are kept, ARGV[3] those
#: that dead letters are kept.
_COMMON = """
local prefix, keep, keep_dead = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local function job_key(id) return prefix .. ':job:' .. id end
local function stream_key(model) return prefix .. ':jobs:' .. model end
local function leave_stream(model, entry)
  redis.call('XACK', stream_key(model), 'workers', entry)
  redis.call('XDEL', stream_key(model), entry)
end
local function join_stream(id, model)
  local entry = redis.call('XADD', stream_key(model), '*', 'id', id)
  redis.call('HSET', job_key(id), 'entry', entry, 'status', 'queued')
end
local function finish(id, model, entry, status, outcome)
  local job = job_key(id)
  redis.call('HSET', job, 'status', status, 'outcome', outcome, 'finished', string.format('%.6f', now))
  leave_stream(model, entry)
  local seconds = keep
  if status == 'dead' then
    seconds = keep_dead
    redis.call('ZADD', prefix .. ':dead', now, id)
    redis.call('ZREMRANGEBYSCORE', prefix .. ':dead', '-inf', now - keep_dead)
  else
    redis.call('HDEL', job, 'body')
  end
  local key = redis.call('HGET', job, 'key')
  if key then redis.call('PEXPIRE', prefix .. ':key:' .. key, math.ceil(seconds * 1000)) end
  redis.call('PEXPIRE', job, math.ceil(seconds * 1000))
end
local function holds(id, token)
  local held = redis.call('HMGET', job_key(id), 'token', 'status', 'model', 'entry')
  return held[1] == token and held[2] == 'running', held[3], held[4], held
end
"""

#: id, model, body, key or '', digest of a request with a key, timeout or '' → the job's id, and 1 where it is
#: another request's
ADD = (
    _COMMON
    + """
local id, model, body, key, digest, timeout = ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if key ~= '' then
  local known = redis.call('GET', prefix .. ':key:' .. key)
  if known and redis.call('EXISTS', job_key(known)) == 1 then
    local earlier = redis.call('HGET', job_key(known), 'digest')
    return {known, earlier and earlier ~= digest and 1 or 0}
  end
  redis.call('SET', prefix .. ':key:' .. key, id)
  redis.call('HSET', job_key(id), 'key', key, 'digest', digest)
elseif redis.call('EXISTS', job_key(id)) == 1 then
  return {id, 0}
end
redis.call('SADD', prefix .. ':models', model)
redis.call('HSET', job_key(id), 'model', model, 'body', body, 'attempts', 0,
           'created', string.format('%.6f', now))
if timeout ~= '' then
  redis.call('HSET', job_key(id), 'expires', string.format('%.6f', now + tonumber(timeout)))
end
join_stream(id, model)
return {id, 0}
"""
)

#: model, seconds: consumers that are idle for so long, and hold nothing, leave the group
LEAVE = (
    _COMMON
    + """
local stream = stream_key(ARGV[4])
local left = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', stream, 'workers')) do
  local at = {}
  for i = 1, #consumer, 2 do at[consumer[i]] = consumer[i + 1] end
  if at.pending == 0 and at.idle > tonumber(ARGV[5]) * 1000 then
    redis.call('XGROUP', 'DELCONSUMER', stream, 'workers', at.name)
    left = left + 1
  end
end
return left
"""
)

#: model → how many jobs have come back from their pause
PROMOTE = (
    _COMMON
    + """
local model = ARGV[4]
local later = prefix .. ':later:' .. model
local ids = redis.call('ZRANGEBYSCORE', later, '-inf', now, 'LIMIT', 0, 100)
for _, id in ipairs(ids) do
  redis.call('ZREM', later, id)
  -- of a key that is no hash, this is an error, and no status
  if redis.pcall('HGET', job_key(id), 'status') == 'queued' then join_stream(id, model) end
end
return #ids
"""
)

#: model, consumer, token, max_attempts, outcomes where lost, expired and unreadable, then entry and id of
#: each delivery → {id, entry, attempt, body, seconds left or ''} of those that this consumer shall run
BEGIN = (
    _COMMON
    + """
local model, consumer, token, max_attempts = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])
local begun = {}
for i = 11, #ARGV, 2 do
  local entry, id = ARGV[i], ARGV[i + 1]
  local job = job_key(id)
  -- of a key that is no hash, an error, in which nothing is found
  local at = redis.pcall('HMGET', job, 'status', 'entry', 'token', 'attempts', 'expires', 'body')
  local attempts, expires = tonumber(at[4] or ''), tonumber(at[5] or '')
  local left = expires and expires - now
  local mine = redis.call('XPENDING', stream_key(model), 'workers', entry, entry, 1, consumer)
  if #mine == 0 then
    -- another has it by now
  elseif at[2] ~= entry or (at[1] ~= 'queued' and at[1] ~= 'running') then
    leave_stream(model, entry)
  elseif not attempts or (at[5] and not expires) then
    redis.call('HSET', job, 'attempts', attempts or 0)
    finish(id, model, entry, 'dead', ARGV[10])
  elseif at[1] == 'running' and at[3] == token then
    begun[#begun + 1] = {id, entry, attempts, at[6] or '', left and tostring(left) or ''}
  elseif left and left <= 0 then
    finish(id, model, entry, 'failed', ARGV[9])
  elseif attempts >= max_attempts then
    finish(id, model, entry, 'dead', ARGV[8])
  else
    redis.call('HSET', job, 'status', 'running', 'token', token, 'attempts', attempts + 1)
    begun[#begun + 1] = {id, entry, attempts + 1, at[6] or '', left and tostring(left) or ''}
  end
end
return begun
"""
)

#: consumer, then id and token of each → 1 or 0 for each
EXTEND = (
    _COMMON
    + """
local alive = {}
for i = 5, #ARGV, 2 do
  local held, model, entry = holds(ARGV[i], ARGV[i + 1])
  if held then
    redis.call('XCLAIM', stream_key(model), 'workers', ARGV[4], 0, entry, 'JUSTID')
  end
  alive[#alive + 1] = held and 1 or 0
end
return alive
"""
)

#: id, token, status, outcome → 1, or 0 where the lease holds no more
FINISH = (
    _COMMON
    + """
local id, token, status = ARGV[4], ARGV[5], ARGV[6]
local held, model, entry, at = holds(id, token)
if not held then return (at[1] == token and at[2] == status) and 1 or 0 end
finish(id, model, entry, status, ARGV[7])
return 1
"""
)

#: id, token, pause, outcome → 1 or 0
RETRY = (
    _COMMON
    + """
local id, token = ARGV[4], ARGV[5]
local held, model, entry = holds(id, token)
if not held then return 0 end
leave_stream(model, entry)
redis.call('HSET', job_key(id), 'status', 'queued', 'outcome', ARGV[7], 'entry', '')
redis.call('ZADD', prefix .. ':later:' .. model, now + tonumber(ARGV[6]), id)
return 1
"""
)

#: id, token → 1 or 0
GIVE_BACK = (
    _COMMON
    + """
local held, model, entry = holds(ARGV[4], ARGV[5])
if not held then return 0 end
leave_stream(model, entry)
redis.call('HINCRBY', job_key(ARGV[4]), 'attempts', -1)
join_stream(ARGV[4], model)
return 1
"""
)

#: model, entry, its content as text, outcome: an entry that names no job becomes a dead letter of its own
BURY = (
    _COMMON
    + """
local id = 'entry-' .. ARGV[5]
redis.call('HSET', job_key(id), 'model', ARGV[4], 'attempts', 0, 'created', string.format('%.6f', now),
           'body', ARGV[6])
finish(id, ARGV[4], ARGV[5], 'dead', ARGV[7])
return 1
"""
)

#: id → 1, or 0 where it is not dead
REQUEUE = (
    _COMMON
    + """
local job = job_key(ARGV[4])
local at = redis.call('HMGET', job, 'status', 'model', 'key')
if at[1] ~= 'dead' then return 0 end
redis.call('ZREM', prefix .. ':dead', ARGV[4])
redis.call('PERSIST', job)
if at[3] then redis.call('PERSIST', prefix .. ':key:' .. at[3]) end
redis.call('HDEL', job, 'outcome', 'finished', 'expires', 'token')
redis.call('HSET', job, 'attempts', 0)
join_stream(ARGV[4], at[2])
return 1
"""
)

"""What is done inside the Redis server, each in one step: the Lua scripts, and the names of the keys.

In: arguments, as the stores give them. Out: rows, as the stores read them. Must not: take longer than a few
milliseconds a call (all of Redis waits meanwhile), or leave a key that nothing renews without an expiry.

Keys, all under ``edge:`` (``edge:schema`` and what ``keys`` keeps have no expiry):

- ``edge:st:ID`` hash: a stream's ``meta principal owner keep first last size back``, and as it comes ``upstream``,
  ``stop``, ``ending`` and ``at``, or ``lost`` and ``at`` if a reader found its owner gone. It outlives the events, to
  say that they were there; without ``first``, or without events though ``last`` is not 0, they had to go
- ``edge:ev:ID`` stream: an entry is some whole events in a row, ``d``, and their number, ``n``; its id is the sequence
  of the last of them, so that what is written twice is written once
- ``edge:all``, ``edge:of:PRINCIPAL`` sorted sets: ids of streams by when they began; may name some that are gone
- ``edge:lease:OWNER`` when a process was last known to live; ``edge:claim:WHOSE`` who has a session
- ``edge:se:WHOSE`` hash: a session; ``edge:sessions`` sorted set: those, the one unused for longest first
- ``edge:keys`` hash: the records of keys that were made; ``edge:keys:mark`` how often that was changed;
  ``edge:secret:NAME`` a secret of the installation
- channels ``edge:went:ID`` (a stream went on, or ended) and ``edge:ask:OWNER`` (a stream is to be stopped)

``WHOSE`` is the length of the principal, the principal and the session. The scripts make up names of keys, so a Redis
Cluster, which wants to know them beforehand, will not do.
"""

import hashlib
from dataclasses import dataclass, field

from edge.store.ports import LEASE_S, REMEMBERED

PREFIX = "edge:"
# Of the oldest version that can use what is kept. Later versions add keys and fields, which this one ignores, and raise
# it only for what it cannot live with; then it refuses the server.
SCHEMA = "1"


@dataclass(frozen=True, slots=True)
class Script:
    """A script, and the name that a server which has seen it knows it by.

    Attributes:
        repeatable: Run twice it has done, and answers, the same as run once.
    """

    text: str
    repeatable: bool = False
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


def whose(principal: str, session: str) -> str:
    """A session's own name in keys."""
    return f"{len(principal)}:{principal}:{session}"


# ``now`` is the server's time, so that clocks of nodes need not agree; a test may give its own.
COMMON = """
local call = redis.call
local function now_from(given)
  if given ~= '' then return given end
  local t = call('TIME')
  return string.format('%d.%06d', t[1], t[2])
end
local function alive(owner, now)
  local at = call('GET', 'edge:lease:' .. owner)
  return now == '0' or (at and tonumber(at) >= tonumber(now) - LEASE_S)
end
local function kept(id)
  local h = call('HMGET', 'edge:st:' .. id, 'first', 'last')
  return h[1] and (h[2] == '0' or call('EXISTS', 'edge:ev:' .. id) == 1)
end
local function unlist(id, principal)
  call('ZREM', 'edge:all', id)
  if principal then call('ZREM', 'edge:of:' .. principal, id) end
  call('PUBLISH', 'edge:went:' .. id, 'end')
end
local function let_go(id)  -- but not of that it was there; nothing here needs memory
  call('DEL', 'edge:ev:' .. id)
  call('HDEL', 'edge:st:' .. id, 'first', 'size')
  unlist(id, call('HGET', 'edge:st:' .. id, 'principal'))
end
local function forget(id)
  local principal = call('HGET', 'edge:st:' .. id, 'principal')
  call('DEL', 'edge:st:' .. id, 'edge:ev:' .. id)
  unlist(id, principal)
end
local function expire(id, principal, ms)
  call('PEXPIRE', 'edge:st:' .. id, ms * REMEMBERED)
  call('PEXPIRE', 'edge:ev:' .. id, ms)
  for _, key in ipairs({'edge:all', 'edge:of:' .. principal}) do
    if call('PTTL', key) < tonumber(ms) then call('PEXPIRE', key, ms) end
  end
end
""".replace("LEASE_S", str(LEASE_S)).replace("REMEMBERED", str(REMEMBERED))

# A stream that is there, as ``id meta owner first last size ending lost upstream back``, and whether its events are; it
# finds out who is lost.
_ROW = """
local function row(id, now, oldest, keep_ms)
  local key = 'edge:st:' .. id
  local h = call('HMGET', key, 'meta', 'owner', 'first', 'last', 'size', 'ending', 'lost', 'upstream', 'back', 'at',
    'principal')
  if not h[1] then return nil end
  if h[10] then
    local at, from = tonumber(h[10]), tonumber(oldest)
    if at < from - (REMEMBERED - 1) * keep_ms / 1000 then forget(id) return nil end
    if at < from and h[3] then let_go(id) end
  elseif not alive(h[2], now) then
    call('HSET', key, 'lost', now, 'at', now)
    expire(id, h[11], keep_ms)
    call('PUBLISH', 'edge:went:' .. id, 'end')
    h[7] = now
  end
  local there = kept(id)
  if not there then h[3], h[5] = string.format('%d', h[4] + 1), 0 end
  return {id, h[1], h[2], h[3], h[4], h[5], h[6], h[7], h[8], h[9]}, there
end
""".replace("REMEMBERED", str(REMEMBERED))

# now, owner, milliseconds until the lease goes, schema -> the schema that is there
RENEW = Script(
    COMMON
    + """
local oldest = call('GET', 'edge:schema')
if oldest and not (tonumber(oldest) and tonumber(oldest) <= tonumber(ARGV[4])) then return oldest end
if not oldest then call('SET', 'edge:schema', ARGV[4]) end
call('SET', 'edge:lease:' .. ARGV[2], now_from(ARGV[1]), 'PX', ARGV[3])
return ARGV[4]
"""
)

# owner, then ids of its live streams -> nothing; who follows them looks at once
LEAVE = Script("""
redis.call('DEL', 'edge:lease:' .. ARGV[1])
for i = 2, #ARGV do redis.call('PUBLISH', 'edge:went:' .. ARGV[i], 'end') end
""")

# owner, milliseconds of a live stream, of an ended one, then seven for each operation: kind, id and its own five
#   begin: meta, principal, created, bytes to keep | append: last, count, data
#   end: last, ending, upstream, at, how many came back past the store | drop
# -> ids of streams that are not as they should be: gone, or not at the event that was last written
WRITE = Script(
    COMMON
    + """
local owner, live_ms, keep_ms = ARGV[1], ARGV[2], ARGV[3]
local function clean(key)
  for _, id in ipairs(call('ZRANDMEMBER', key, 3)) do
    if not kept(id) then call('ZREM', key, id) end
  end
end
local function trim(ev, size, keep, first)
  local left = call('XLEN', ev)
  while size > keep and left > 1 do
    local entry = call('XRANGE', ev, '-', '+', 'COUNT', 1)[1]
    size = size - #entry[2][2]
    first = tonumber(string.match(entry[1], '^%d+')) + 1
    left = left - 1
    call('XDEL', ev, entry[1])
  end
  return size, first
end
local kinds = {}
function kinds.begin(id, meta, principal, created, keep)
  local key = 'edge:st:' .. id
  if call('EXISTS', key) == 1 then return true end
  call('HSET', key, 'meta', meta, 'principal', principal, 'owner', owner, 'keep', keep, 'first', 1, 'last', 0,
    'size', 0, 'back', 0)
  clean('edge:all')
  clean('edge:of:' .. principal)
  call('ZADD', 'edge:all', created, id)
  call('ZADD', 'edge:of:' .. principal, created, id)
  expire(id, principal, live_ms)
  return true
end
function kinds.append(id, last, count, data)
  local key, ev = 'edge:st:' .. id, 'edge:ev:' .. id
  local h = call('HMGET', key, 'owner', 'last', 'size', 'keep', 'first', 'lost')
  if h[1] ~= owner or not h[5] then return false end
  local before, after = tonumber(h[2]), tonumber(last)
  if after <= before then return true end
  if before > 0 and call('EXISTS', ev) == 0 then return false end
  if after - tonumber(count) ~= before then return false end
  call('XADD', ev, last .. '-0', 'd', data, 'n', count)
  if before == 0 then call('PEXPIRE', ev, live_ms) end
  local size, first = tonumber(h[3]) + #data, tonumber(h[5])
  if size > tonumber(h[4]) then size, first = trim(ev, size, tonumber(h[4]), first) end
  call('HSET', key, 'last', last, 'size', size, 'first', first)
  if h[6] then call('HDEL', key, 'lost', 'at') end
  call('PUBLISH', 'edge:went:' .. id, last)
  return true
end
kinds['end'] = function(id, last, ending, upstream, at, back)
  local key = 'edge:st:' .. id
  local h = call('HMGET', key, 'owner', 'last', 'principal')
  if h[1] ~= owner or h[2] ~= last or not kept(id) then return false end
  if call('HEXISTS', key, 'ending') == 0 then call('HINCRBY', key, 'back', back) end  -- once, if written twice
  call('HSET', key, 'ending', ending, 'at', at)
  if upstream ~= '' then call('HSET', key, 'upstream', upstream) end
  call('HDEL', key, 'lost', 'stop')
  expire(id, h[3], keep_ms)
  call('PUBLISH', 'edge:went:' .. id, 'end')
  return true
end
function kinds.drop(id)
  if call('HGET', 'edge:st:' .. id, 'owner') == owner then forget(id) end
  return true
end
local bad = {}
for i = 4, #ARGV, 7 do
  local id = ARGV[i + 1]
  local went, good = pcall(kinds[ARGV[i]], id, ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5],
    ARGV[i + 6])
  if not went then
    local why = type(good) == 'table' and good.err or good
    if not string.find(why, 'WRONGTYPE') then return redis.error_reply(why) end
  end
  if not (went and good) then bad[#bad + 1] = id end
end
return bad
"""
)

# owner, milliseconds of a live stream, then ids of live streams -> those that are gone, those that are to be stopped
TEND = Script(
    COMMON
    + """
local gone, stop = {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local h = call('HMGET', 'edge:st:' .. id, 'owner', 'principal', 'stop', 'lost')
  if h[1] ~= ARGV[1] or not kept(id) then
    gone[#gone + 1] = id
  else
    expire(id, h[2], ARGV[2])
    if h[3] then stop[#stop + 1] = id end
    if h[4] then call('HDEL', 'edge:st:' .. id, 'lost', 'at') end
  end
end
return {gone, stop}
"""
)

# now, oldest end, milliseconds of an ended stream, principal ('' = any), then ids -> rows of those that are theirs
FIND = Script(
    COMMON
    + _ROW
    + """
local now, rows = now_from(ARGV[1]), {}
for i = 5, #ARGV do
  if ARGV[4] == '' or call('HGET', 'edge:st:' .. ARGV[i], 'principal') == ARGV[4] then
    local one = row(ARGV[i], now, ARGV[2], ARGV[3])
    if one then rows[#rows + 1] = one end
  end
end
return rows
""",
    repeatable=True,
)

# now, oldest end, milliseconds of an ended stream, index, rank, how many -> next rank or -1, rows
LIST = Script(
    COMMON
    + _ROW
    + """
local now, key, rank, most = now_from(ARGV[1]), ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
local ids = call('ZREVRANGE', key, rank, rank + most - 1)
local rows = {}
for _, id in ipairs(ids) do
  local one, there = row(id, now, ARGV[2], ARGV[3])
  if there then rows[#rows + 1] = one else call('ZREM', key, id) end
end
return {#ids < most and -1 or rank + #rows, rows}
""",
    repeatable=True,
)

# oldest end, id, after, bytes -> three numbers an entry (its last event, how many, bytes), and all their data in one,
# which a client reads far faster than a list of lists; or nothing at all if that is not kept
READ = Script(
    """
local h = redis.call('HMGET', 'edge:st:' .. ARGV[2], 'first', 'at', 'last')
local from, most = tonumber(ARGV[3]) + 1, tonumber(ARGV[4])
if not h[1] or from < tonumber(h[1]) or (h[2] and tonumber(h[2]) < tonumber(ARGV[1])) then return false end
local heads, found, size = {}, {}, 0
repeat
  local entries = redis.call('XRANGE', 'edge:ev:' .. ARGV[2], string.format('%d-0', from), '+', 'COUNT', 16)
  for _, entry in ipairs(entries) do
    if size >= most then break end
    local last = string.match(entry[1], '^%d+')
    heads[#heads + 1] = last .. ' ' .. entry[2][4] .. ' ' .. #entry[2][2]
    found[#found + 1] = entry[2][2]
    size = size + #entry[2][2]
    from = tonumber(last) + 1
  end
until size >= most or #entries < 16
if #found == 0 and from <= tonumber(h[3]) then return false end
return {table.concat(heads, ' '), table.concat(found)}
""",
    repeatable=True,
)

# now, id -> last event, or -1 if there is nothing to wait for: it has ended, is gone, or its process is
LOOK = Script(
    COMMON
    + """
local h = call('HMGET', 'edge:st:' .. ARGV[2], 'last', 'at', 'owner')
if not h[1] or h[2] or not alive(h[3], now_from(ARGV[1])) then return -1 end
return tonumber(h[1])
""",
    repeatable=True,
)

# id -> nothing
STOP = Script(
    """
local h = redis.call('HMGET', 'edge:st:' .. ARGV[1], 'owner', 'at')
if h[1] and not h[2] then
  redis.call('HSET', 'edge:st:' .. ARGV[1], 'stop', 1)
  redis.call('PUBLISH', 'edge:ask:' .. h[1], ARGV[1])
end
""",
    repeatable=True,
)

# oldest end, then ids -> how many came back to each by now
CAME_BACK = Script(
    COMMON
    + """
local counts = {}
for i = 2, #ARGV do
  local key = 'edge:st:' .. ARGV[i]
  local at = call('HGET', key, 'at')
  if not kept(ARGV[i]) or (at and tonumber(at) < tonumber(ARGV[1])) then
    counts[#counts + 1] = 0
  else
    counts[#counts + 1] = call('HINCRBY', key, 'back', 1)
  end
end
return counts
"""
)

# oldest end that counts, end that is too late ('' = none is), ids -> how many it let go of that count; if none is too
# late, it is forgotten as well that they were there
FORGET = Script(
    COMMON
    + """
local count = 0
for i = 3, #ARGV do
  local at = tonumber(call('HGET', 'edge:st:' .. ARGV[i], 'at') or '')
  if at and (ARGV[2] == '' or at < tonumber(ARGV[2])) then
    if at >= tonumber(ARGV[1]) and kept(ARGV[i]) then count = count + 1 end
    if ARGV[2] == '' then forget(ARGV[i]) else let_go(ARGV[i]) end
  end
end
return count
"""
)

# oldest end, ids -> streams, live ones, bytes
SIZES = Script(
    """
local streams, live, bytes = 0, 0, 0
for i = 2, #ARGV do
  local h = redis.call('HMGET', 'edge:st:' .. ARGV[i], 'size', 'at')
  if h[1] and not (h[2] and tonumber(h[2]) < tonumber(ARGV[1])) then
    streams, bytes = streams + 1, bytes + tonumber(h[1])
    if not h[2] then live = live + 1 end
  end
end
return {streams, live, bytes}
""",
    repeatable=True,
)

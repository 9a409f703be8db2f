"""What is done inside the Redis server to count: the Lua scripts, and the names of the keys.

In: arguments, as ``counters`` gives them. Out: what was taken, and how the counts stand. Must not: see
``scripts``.

Keys, besides those of ``scripts``:

- ``edge:win:KIND:SCOPE`` hash: a sliding minute, amounts by slot (see ``policy.limits.windows``)
- ``edge:run:SCOPE`` hash: which requests are running, each with its owner; those whose owner's lease has lapsed do not
  count, and go
- ``edge:bud:PERIOD:SCOPE`` number: what is spent or reserved of a budget
- ``edge:use:DAY`` hash: usage, three fields for each account
- ``edge:cnt:OWNER`` number: the latest batch of a process that has been added, so that none is added twice
"""

from edge.policy.limits.windows import WINDOW_S
from edge.store.redis.scripts import COMMON, Script

_WINDOW_MS = 120_000
_RUNNING_MS = 60_000  # renewed with the lease
_BUDGET_MS = 40 * 86_400_000
_USAGE_MS = 400 * 86_400_000
_BATCH_MS = 86_400_000

# now, owner, id of the request, then for each bound: kind (w, c or b), key, amount, limit, and for a budget the key and
# the beginning of its next period -> now, whether all was taken, and for each bound: used, ms to wait, ms to its reset
TAKE = Script(
    COMMON
    + """
local now, owner, id = tonumber(now_from(ARGV[1])), ARGV[2], ARGV[3]
local slot, ok, rows, lives = math.floor(now), 1, {}, {[owner] = true}
for i = 4, #ARGV, 6 do
  local row = {kind = ARGV[i], key = ARGV[i + 1], amount = tonumber(ARGV[i + 2]), limit = tonumber(ARGV[i + 3])}
  row.used, row.wait, row.reset = 0, 0, 0
  if row.kind == 'w' then
    local all = call('HGETALL', row.key)
    row.slots = {}
    for j = 1, #all, 2 do
      local at, amount = tonumber(all[j]), tonumber(all[j + 1])
      if math.abs(slot - at) <= WINDOW_S then
        row.used = row.used + amount
        row.slots[#row.slots + 1] = {at, amount}
      else
        call('HDEL', row.key, all[j])
      end
    end
  elseif row.kind == 'c' then
    local all = call('HGETALL', row.key)
    for j = 1, #all, 2 do
      local whose = all[j + 1]
      if lives[whose] == nil then lives[whose] = alive(whose, now) or false end
      if all[j] == id or not lives[whose] then -- itself may be there: RUN tells of what is being asked, too
        call('HDEL', row.key, all[j])
      else
        row.used = row.used + 1
      end
    end
  else
    if now >= tonumber(ARGV[i + 5]) then row.key = ARGV[i + 4] end
    row.used = tonumber(call('GET', row.key) or '0')
  end
  if row.used + row.amount > row.limit then ok = 0 end
  rows[#rows + 1] = row
end
local told = {string.format('%.6f', now), ok}
for _, row in ipairs(rows) do
  if ok == 1 then
    if row.kind == 'w' then
      call('HINCRBY', row.key, slot, row.amount)
      call('PEXPIRE', row.key, WINDOW_MS)
      row.slots[#row.slots + 1] = {slot, row.amount}
    elseif row.kind == 'c' then
      call('HSET', row.key, id, owner)
      call('PEXPIRE', row.key, RUNNING_MS)
    else
      call('INCRBY', row.key, row.amount)
      call('PEXPIRE', row.key, BUDGET_MS)
    end
    row.used = row.used + row.amount
  end
  if row.kind == 'w' then
    table.sort(row.slots, function(a, b) return a[1] < b[1] end)
    local over = ok == 1 and 0 or row.used + row.amount - row.limit
    for _, entry in ipairs(row.slots) do
      local clear = math.max(0, entry[1] + WINDOW_S + 1 - now)
      if over > 0 then
        row.wait = clear
        over = over - entry[2]
      end
      row.reset = math.max(row.reset, clear)
    end
  end
  told[#told + 1] = row.used
  told[#told + 1] = math.ceil(row.wait * 1000)
  told[#told + 1] = math.ceil(row.reset * 1000)
end
return told
""".replace("WINDOW_S", str(WINDOW_S))
    .replace("WINDOW_MS", str(_WINDOW_MS))
    .replace("RUNNING_MS", str(_RUNNING_MS))
    .replace("BUDGET_MS", str(_BUDGET_MS))
)

# owner, number of the batch, then four for each operation: kind, key, field, amount -> nothing
#   w: of a minute, field is the slot | b: of a budget | u: of usage | e: field has ended
ADD = Script("""
local call = redis.call
local done = 'edge:cnt:' .. ARGV[1]
if tonumber(call('GET', done) or '0') >= tonumber(ARGV[2]) then return end
call('SET', done, ARGV[2], 'PX', BATCH_MS)
for i = 3, #ARGV, 4 do
  local kind, key, field, amount = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if kind == 'w' then
    if call('HINCRBY', key, field, amount) <= 0 then call('HDEL', key, field) end
    call('PEXPIRE', key, WINDOW_MS)
  elseif kind == 'b' then
    call('INCRBY', key, amount)
    call('PEXPIRE', key, BUDGET_MS)
  elseif kind == 'u' then
    call('HINCRBY', key, field, amount)
    call('PEXPIRE', key, USAGE_MS)
  else
    call('HDEL', key, field)
  end
end
""".replace("WINDOW_MS", str(_WINDOW_MS))
    .replace("BUDGET_MS", str(_BUDGET_MS))
    .replace("USAGE_MS", str(_USAGE_MS))
    .replace("BATCH_MS", str(_BATCH_MS))
)  # fmt: skip

# owner, then for each scope: its key, how many requests of the owner run there, and their ids -> nothing
RUN = Script("""
local i = 2
while i < #ARGV do
  local key, count, mine = ARGV[i], tonumber(ARGV[i + 1]), {}
  for j = i + 2, i + 1 + count do
    mine[ARGV[j]] = true
    redis.call('HSET', key, ARGV[j], ARGV[1])
  end
  local all = redis.call('HGETALL', key)
  for j = 1, #all, 2 do
    if all[j + 1] == ARGV[1] and not mine[all[j]] then redis.call('HDEL', key, all[j]) end
  end
  redis.call('PEXPIRE', key, RUNNING_MS)
  i = i + 2 + count
end
""".replace("RUNNING_MS", str(_RUNNING_MS))
)  # fmt: skip

# days -> for each: its usage
USED = Script(
    """
local found = {}
for i = 1, #ARGV do found[i] = redis.call('HGETALL', 'edge:use:' .. ARGV[i]) end
return found
""",
    repeatable=True,
)

"""What is done inside the Redis server with sessions and with who has one: see ``scripts``, which names the keys.

In: arguments, as ``sessions`` gives them. Out: documents, as it reads them. Must not: see ``scripts``.
"""

from edge.store.redis.scripts import COMMON, Script

# whose -> version, document
RECALL = Script("return redis.call('HMGET', 'edge:se:' .. ARGV[1], 'v', 'doc')", repeatable=True)

# whose, version that was read ('' = none), new version, document, milliseconds, most sessions -> whether it was so
KEEP = Script(
    """
local key = 'edge:se:' .. ARGV[1]
local v = redis.call('HGET', key, 'v') or ''
if v == ARGV[3] then return 1 end -- asked a second time
if v ~= ARGV[2] then return 0 end
redis.call('HSET', key, 'v', ARGV[3], 'doc', ARGV[4])
redis.call('PEXPIRE', key, ARGV[5])
local latest = redis.call('ZREVRANGE', 'edge:sessions', 0, 0, 'WITHSCORES')
redis.call('ZADD', 'edge:sessions', (latest[2] or 0) + 1, ARGV[1])
if redis.call('PTTL', 'edge:sessions') < tonumber(ARGV[5]) then redis.call('PEXPIRE', 'edge:sessions', ARGV[5]) end
local over = redis.call('ZCARD', 'edge:sessions') - tonumber(ARGV[6])
for _, whose in ipairs(redis.call('ZRANGE', 'edge:sessions', 0, math.max(over, 10) - 1)) do
  if over > 0 or redis.call('EXISTS', 'edge:se:' .. whose) == 0 then
    redis.call('DEL', 'edge:se:' .. whose)
    redis.call('ZREM', 'edge:sessions', whose)
    over = over - 1
  end
end
return 1
""",
    repeatable=True,
)

# whose -> the document that was there
UNLEARN = Script("""
local doc = redis.call('HGET', 'edge:se:' .. ARGV[1], 'doc')
redis.call('DEL', 'edge:se:' .. ARGV[1])
redis.call('ZREM', 'edge:sessions', ARGV[1])
return doc
""")

# now, owner, milliseconds, whose -> whether the owner has it
CLAIM = Script(
    COMMON
    + """
local key = 'edge:claim:' .. ARGV[4]
local has = call('GET', key)
if has and has ~= ARGV[2] and alive(has, now_from(ARGV[1])) then return 0 end
call('SET', key, ARGV[2], 'PX', ARGV[3])
return 1
""",
    repeatable=True,
)

# owner, whose in any number -> nothing
YIELD_UP = Script(
    """
for i = 2, #ARGV do
  if redis.call('GET', 'edge:claim:' .. ARGV[i]) == ARGV[1] then redis.call('DEL', 'edge:claim:' .. ARGV[i]) end
end
""",
    repeatable=True,
)

# owner, milliseconds, whose in any number -> nothing; a claim that somebody else has got meanwhile stays with them
HOLD = Script("""
for i = 3, #ARGV do
  local key = 'edge:claim:' .. ARGV[i]
  local has = redis.call('GET', key)
  if not has or has == ARGV[1] then redis.call('SET', key, ARGV[1], 'PX', ARGV[2]) end
end
""")

-- The transactions of the Redis engine. `_script.py` makes a script of each call, of what that needs. ARGV[1] names the
-- call, ARGV[2] is its argument and the answer its result, both packed by msgpack. KEYS[1] is "tk:{group}:", which starts
-- every key, so that all keys of a group are in one slot. Whatever can refuse a call is looked at before the first write.
--
--   t:ID         hash, a task                           l:LANE      zset rank -> id, a line of ready tasks
--   lanes        zset, the lines that are not empty     due         zset time -> id, scheduled tasks
--   tasks:STATE  zset of ids                            a:ID        hash node -> assignment
--   leases       zset lease -> ID\31NODE                w:NODE      set of ids
--   k:Q\31KEY    id, the head of an ordering key        kb:Q\31KEY  list of ids blocked behind it
--   c:Q\31OP\31KEY\31JOB  id, who absorbs a coalesce key  ab:ID   list, the arguments it absorbed
--   deadlines, ended, ids         zsets of ids          tally, cnt, n, members, locks, queues, cfg   hashes
--   ev           stream, the journal
-- The keys of jobs, and what is done with them, are in redis_jobs.lua, which follows this file; redis_call.lua, the
-- end of the script, makes the call.
local P, call = KEYS[1], redis.call
local A = cmsgpack.unpack(ARGV[2])
local time = call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local SEP = '\31'

local readied = false -- a task became ready, or has a date: workers should hear of it
local finally -- to be called when the call was made
local jobs = {} -- what redis_jobs.lua adds: the tasks tell it, and ask it

local function key(kind, name) return P .. kind .. ':' .. name end
local function ring(topic) call('PUBLISH', P .. topic, '!') end
local function draw(name) return call('HINCRBY', P .. 'n', name, 1) end

-- What changes with every task is gathered, and written once for all tasks that a call concerns: counts, and which lines
-- may have become empty. Nothing reads it in the call that changes it.
local tallies, counts, left_lines = {}, {}, {}
local function tally(queue, state, by)
  local name = queue .. SEP .. state
  tallies[name] = (tallies[name] or 0) + by
end
local function count(name) counts[name] = (counts[name] or 0) + 1 end
local function write_gathered()
  for name, by in pairs(tallies) do
    if by ~= 0 then call('HINCRBY', P .. 'tally', name, by) end
  end
  for name, by in pairs(counts) do call('HINCRBY', P .. 'cnt', name, by) end
  for lane in pairs(left_lines) do
    if call('EXISTS', key('l', lane)) == 0 then call('ZREM', P .. 'lanes', lane) end
  end
end

local function note(kind, subject, by, detail)
  call('XADD', P .. 'ev', '*', 'at', now, 'kind', kind, 'subject', subject, 'by', by or '', 'detail', detail or '')
end
local function get(id, field) return call('HGET', key('t', id), field) end
local function set(id, ...) call('HSET', key('t', id), ...) end
local function unpacked(hash, field)
  local packed = call('HGET', P .. hash, field)
  return packed and cmsgpack.unpack(packed)
end

local LIVING = {scheduled = true, blocked = true, ready = true, held = true, idle = true, assigned = true}
-- Those of the other states are most of all tasks: whoever wants some finds them among all ids.
local LISTED = {scheduled = true, blocked = true, ready = true, held = true, idle = true, assigned = true, dead = true}
local function living(id) return LIVING[get(id, 'state') or ''] or false end

-- Move a task to another state: out of the structure it is in, into the one where it is looked for. Returns its job, and
-- what it counts there; and what its end has to know.
local function move(id, to)
  local f = call('HMGET', key('t', id), 'queue', 'lane', 'state', 'rank', 'ordering_key', 'coalesce_key', 'op', 'due',
    'job', 'counted', 'deadline')
  local queue, lane, from, rank, okey, ckey, op, due, job, counted, deadline = unpack(f)
  if from == 'ready' then
    call('ZREM', key('l', lane), id)
    left_lines[lane] = true
  elseif from == 'scheduled' then
    call('ZREM', P .. 'due', id)
    if ckey then
      local absorber = key('c', queue .. SEP .. op .. SEP .. ckey .. SEP .. (job or ''))
      if call('GET', absorber) == id then call('DEL', absorber) end
    end
  elseif from == 'idle' then call('ZREM', P .. 'due', id)
  elseif from == 'blocked' then call('LREM', key('kb', queue .. SEP .. okey), 1, id)
  end
  if to == 'ready' then
    call('ZADD', key('l', lane), rank, id)
    call('ZADD', P .. 'lanes', 0, lane)
    readied = true
  elseif to == 'scheduled' then
    call('ZADD', P .. 'due', due, id)
    if ckey then call('SET', key('c', queue .. SEP .. op .. SEP .. ckey .. SEP .. (job or '')), id) end
    readied = true
  elseif to == 'blocked' then call('RPUSH', key('kb', queue .. SEP .. okey), id)
  elseif to == 'idle' then
    if tonumber(due) > 0 then
      call('ZADD', P .. 'due', due, id)
      readied = true
    end
  elseif not LIVING[to] and to ~= 'dead' then call('ZADD', P .. 'ended', now, id)
  end
  if LISTED[from] then call('ZREM', key('tasks', from), id) end
  if LISTED[to] then call('ZADD', key('tasks', to), 0, id) end
  if counted then jobs.moved(job, id, from, to, rank) end
  if LIVING[to] then set(id, 'state', to) else set(id, 'state', to, 'ended', now) end
  if from then tally(queue, from, -1) end
  tally(queue, to, 1)
  return job, counted, from, queue, okey, deadline
end

-- Ready, at the place of its rank, which is the old one when it was given to somebody and never done.
local function back_in_line(id)
  set(id, 'ready_since', now)
  local job, counted = move(id, 'ready')
  if counted then jobs.hold(id, job) end
end

local function make_ready(id)
  local priority = math.max(-1000, math.min(1000, tonumber(get(id, 'priority'))))
  set(id, 'rank', draw('rank') - priority * 1000)
  back_in_line(id)
end

local function schedule(id, due)
  if due > now then
    set(id, 'due', due)
    move(id, 'scheduled')
  else
    make_ready(id)
  end
end

-- Put a waiting task where it belongs: behind its key, on the schedule, or in the line.
local function settle(id, due)
  local queue, okey = unpack(call('HMGET', key('t', id), 'queue', 'ordering_key'))
  if okey then
    local head = call('GET', key('k', queue .. SEP .. okey))
    if head and head ~= id then
      set(id, 'due', due)
      move(id, 'blocked')
      return
    end
    call('SET', key('k', queue .. SEP .. okey), id)
  end
  schedule(id, due)
end

local function remove_assignment(id, node)
  call('HDEL', key('a', id), node)
  call('SREM', key('w', node), id)
  call('ZREM', P .. 'leases', id .. SEP .. node)
end

-- Move a task to a terminal state, and its ordering key on to the next task.
local function finish_task(id, state, by, error)
  local job, _, from, queue, okey, deadline = move(id, state)
  if from == 'assigned' then
    for _, node in ipairs(call('HKEYS', key('a', id))) do remove_assignment(id, node) end
  end
  if deadline then call('ZREM', P .. 'deadlines', id) end
  if okey and call('GET', key('k', queue .. SEP .. okey)) == id then
    call('DEL', key('k', queue .. SEP .. okey))
    local following = call('LINDEX', key('kb', queue .. SEP .. okey), 0)
    if following then settle(following, tonumber(get(following, 'due'))) end
  end
  ring('ended:' .. id)
  if job then jobs.account(job, id, state, by or '', error) end
end

local function ring_holders(id)
  for _, node in ipairs(call('HKEYS', key('a', id))) do ring('node:' .. node) end
end

local function die(id, error, by)
  set(id, 'error', error)
  finish_task(id, 'dead', by, error)
  count('dead')
  note('dead', id, by)
end

-- Remove an assignment; true when the task has none left, and is ready again at its old place.
local function drop(id, node, fence, reason, by)
  local packed = call('HGET', key('a', id), node)
  if not packed or cmsgpack.unpack(packed).fence ~= fence then return false, false end
  remove_assignment(id, node)
  note('revoke', id, by, node .. ' ' .. fence .. ' ' .. reason)
  if call('EXISTS', key('a', id)) == 1 or get(id, 'state') ~= 'assigned' then return false, true end
  back_in_line(id)
  return true, true
end

local function lose(id, node, fence, reason, by, error)
  if not drop(id, node, fence, reason, by) then return false end
  count('lost')
  note('lost', id, node, reason)
  if call('HINCRBY', key('t', id), 'losses', 1) >= tonumber(get(id, 'max_losses')) then die(id, error, by) end
  return true
end

local function promote(limit)
  local ids = call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do make_ready(id) end
  return #ids
end

-- Write a task's row; `move` makes it be found.
local function write(new, due, counted, absorber)
  local f = {
    'queue', new.queue, 'op', new.op, 'lane', new.lane, 'priority', new.priority, 'created', now, 'due', due,
    'max_losses', new.max_losses, 'args', absorber and '' or new.args,
  }
  local function field(name, value)
    if value then
      f[#f + 1] = name
      f[#f + 1] = value
    end
  end
  field('partition_key', new.partition_key)
  field('ordering_key', not absorber and new.ordering_key)
  field('coalesce_key', new.coalesce_key)
  field('deadline', new.deadline and now + new.deadline)
  field('job', new.job_id ~= '' and new.job_id)
  field('counted', counted > 0 and counted)
  field('index', new.index)
  field('weight', new.weight ~= 1 and new.weight)
  field('meta', new.meta ~= '' and new.meta)
  field('merged_into', absorber)
  field('ended', absorber and now)
  set(new.task_id, unpack(f))
  call('ZADD', P .. 'ids', 0, new.task_id)
  if new.job_id ~= '' then call('ZADD', key('jt', new.job_id), 0, new.task_id) end
end

local function insert(new)
  local id = new.task_id
  if call('EXISTS', key('t', id)) == 1 then
    count('duplicates')
    return 'known'
  end
  local due = math.max(now, new.not_before or (now + new.delay))
  local absorber
  if new.coalesce_key then
    absorber = call('GET', key('c', new.queue .. SEP .. new.op .. SEP .. new.coalesce_key .. SEP .. new.job_id))
    if absorber and tonumber(get(absorber, 'due')) <= now then absorber = false end
  end
  local counted = (absorber or new.job_id == '') and 0 or jobs.enlist(new)
  if not counted then return 'ended' end
  write(new, due, counted, absorber)
  if absorber then
    call('RPUSH', key('ab', absorber), new.args)
    move(id, 'merged')
    count('merged')
    return 'merged'
  end
  if new.deadline then call('ZADD', P .. 'deadlines', now + new.deadline, id) end
  count('submitted')
  settle(id, due)
  return 'new'
end

local function waiting(queue)
  local total = 0
  for _, state in ipairs({'scheduled', 'blocked', 'ready', 'held'}) do
    total = total + tonumber(call('HGET', P .. 'tally', queue .. SEP .. state) or 0)
  end
  return total
end

local function whole(id)
  local fields = call('HGETALL', key('t', id))
  if #fields == 0 then return false end
  return {id, fields, call('LRANGE', key('ab', id), 0, -1)}
end

local function members(dead)
  local found = {}
  local all = call('HGETALL', P .. 'members')
  for i = 2, #all, 2 do
    local member = cmsgpack.unpack(all[i])
    if (member.lease_until <= now) == (dead or false) then found[#found + 1] = member end
  end
  return found
end

local function put_member(member, ttl)
  member.lease_until = now + ttl
  call('HSET', P .. 'members', member.node, cmsgpack.pack(member))
end

local function assignments_of(id)
  local found = {}
  local all = call('HGETALL', key('a', id))
  for i = 1, #all, 2 do
    local a = cmsgpack.unpack(all[i + 1])
    a.task_id, a.node = id, all[i]
    a.lease_until = tonumber(call('ZSCORE', P .. 'leases', id .. SEP .. all[i]) or 0)
    found[#found + 1] = a
  end
  return found
end

local function give_back(node, reason)
  for _, id in ipairs(call('SMEMBERS', key('w', node))) do
    local packed = call('HGET', key('a', id), node)
    if packed then drop(id, node, cmsgpack.unpack(packed).fence, reason, node) end
  end
end

local function lane_parts(lane)
  return lane:match('^([^\31]*)\31([^\31]*)\31([^\31]*)$')
end

local function known_ops()
  local known = {}
  for _, member in ipairs(members()) do
    for op in member.ops:gmatch('[^\n]+') do known[op] = true end
  end
  return known
end

-- What a call is conditional on; each returns the refusal, which goes back as the answer.
local function refuse(kind, ...) return {SEP .. 'refused', kind, ...} end
local function guard_lost()
  if not A.guard then return nil end
  local held = unpacked('locks', A.guard.lock)
  if held and held.fence == A.guard.fence and held.lease_until > now then return nil end
  local who = held and held.lease_until > now and (held.holder .. ' (fence ' .. held.fence .. ')') or 'nobody'
  return refuse('lease', 'the lock \'' .. A.guard.lock .. '\' with fence ' .. A.guard.fence
    .. ' is lost: ' .. who .. ' holds it now')
end
local function member_lost(node, incarnation)
  local member = unpacked('members', node)
  if member and member.incarnation == incarnation and member.lease_until > now then return nil, member end
  return refuse('lease', node .. ' is no member of group \'' .. A.group
    .. '\' any more: its lease ran out; join again')
end

local calls = {}

function calls.now() return now end

-- The refusal of tasks that a queue has no room for.
local function no_room()
  local coming = {}
  for _, new in ipairs(A.tasks) do coming[new.queue] = (coming[new.queue] or 0) + 1 end
  for queue, number in pairs(coming) do
    local config = unpacked('queues', queue)
    if config and config.max_waiting > 0 then
      local wait = waiting(queue)
      local room = math.max(0, config.max_waiting - wait)
      if number > room then
        for _, new in ipairs(A.tasks) do
          if new.queue == queue and call('EXISTS', key('t', new.task_id)) == 1 then number = number - 1 end
        end
        if number > room then
          return refuse('full', queue, room, number, wait, config.max_waiting)
        end
      end
    end
  end
end

function calls.submit()
  local refusal = no_room()
  if refusal then return refusal end
  local outcomes = {}
  for i, new in ipairs(A.tasks) do outcomes[i] = insert(new) end
  return outcomes
end

-- Whether this execution of a task counts.
local function runs(id, node, fence)
  local packed = call('HGET', key('a', id), node)
  return packed and cmsgpack.unpack(packed).fence == fence and get(id, 'state') == 'assigned'
end

local function finish_one(node, e)
  local id = e.task_id
  if not runs(id, node, e.fence) or e.ending == 'turn' and not jobs.is_turn(id) then
    count('stale_completions')
    note('stale', id, node, e.ending .. ' ' .. e.fence)
    return false
  end
  if e.step then set(id, 'step', e.step) end
  if e.data then set(id, 'data', e.data) end
  if e.ending == 'done' then
    set(id, 'result', e.payload)
    local failure = jobs.keep_results(id, e.results)
    finish_task(id, 'done', node)
    count('completed')
    note('done', id, node, '' .. e.fence)
    if failure then jobs.fail_fast(get(id, 'job'), failure, node) end
  elseif e.ending == 'dead' then
    call('HINCRBY', key('t', id), 'attempts', 1)
    die(id, e.payload, node)
  elseif e.ending == 'again' then
    for _, other in ipairs(call('HKEYS', key('a', id))) do remove_assignment(id, other) end
    if e.failed then
      call('HINCRBY', key('t', id), 'attempts', 1)
      set(id, 'error', e.payload)
    elseif e.step then
      set(id, 'attempts', 0)
    end
    schedule(id, now + e.after)
    count(e.failed and 'failed' or 'continued')
    note(e.failed and 'retry' or 'next', id, node, e.fence .. string.format(' %.3f', e.after))
  elseif e.ending == 'lost' then
    lose(id, node, e.fence, 'the process that ran it died', node, e.payload)
  elseif e.ending == 'released' then
    drop(id, node, e.fence, 'released', node)
  elseif e.ending == 'cancelled' then
    finish_task(id, 'cancelled', node, e.payload)
    note('cancel', id, node)
  elseif e.ending == 'turn' then
    jobs.end_turn(id, e.turn, e.fence, node)
  end
  for _, child in ipairs(e.children or {}) do insert(child) end
  jobs.settle()
  return true
end

function calls.finish()
  local outcomes = {}
  for i, e in ipairs(A.ends) do outcomes[i] = finish_one(A.node, e) end
  return outcomes
end

-- The tasks to be run next in one queue, at most `need`, each with its rank.
local function heads_of(queue, need, ops, buckets)
  local heads = {}
  for _, lane in ipairs(call('ZRANGEBYLEX', P .. 'lanes', '[' .. queue .. SEP, '(' .. queue .. ' ')) do
    local _, op, bucket = lane_parts(lane)
    if ops[op] and (bucket == '' or not buckets or buckets[bucket]) then
      local line = call('ZRANGE', key('l', lane), 0, need - 1, 'WITHSCORES')
      for i = 1, #line, 2 do heads[#heads + 1] = {line[i], tonumber(line[i + 1])} end
    end
  end
  table.sort(heads, function(a, b) return a[2] < b[2] end)
  return heads
end

local function give(id, job)
  local fence = draw('fence')
  set(id, 'worker', A.node)
  move(id, 'assigned')
  local by = A.by ~= '' and A.by or A.node
  call('HSET', key('a', id), A.node, cmsgpack.pack({
    incarnation = A.incarnation, fence = fence, attempt = tonumber(get(id, 'attempts') or 0) + 1, since = now,
    running = A.by == '', by = by}))
  call('ZADD', P .. 'leases', now + A.lease, id .. SEP .. A.node)
  call('SADD', key('w', A.node), id)
  count('claimed')
  note('assign', id, by, A.node .. ' ' .. fence)
  return {whole(id), fence, job == id and jobs.turn_of(id)}
end

-- What one claim does for jobs whose state has changed (see redis_jobs.lua); the next one goes on.
local CARRIED_ON, PASSED_OVER = 100, 300

function calls.claim()
  local lost = member_lost(A.node, A.incarnation)
  if lost then return lost end
  for _, e in ipairs(A.ends or {}) do finish_one(A.node, e) end
  jobs.carry_on_all(math.max(A.count, CARRIED_ON))
  promote(100)
  local ops, buckets = {}, A.buckets and {}
  for _, op in ipairs(A.ops) do ops[op] = true end
  for _, bucket in ipairs(A.buckets or {}) do buckets[tostring(bucket)] = true end
  local claims, passed = {}, 0 -- over, for their jobs do not let them run
  for _, queue in ipairs(A.queues) do
    local config = unpacked('queues', queue)
    local more = not (config and config.paused == 1)
    while more and #claims < A.count and passed < PASSED_OVER do
      more = false
      local need = A.count - #claims
      local heads = heads_of(queue, need, ops, buckets)
      for i = 1, math.min(need, #heads) do
        local id = heads[i][1]
        local job = get(id, 'job')
        if not job or jobs.admit(id) then
          claims[#claims + 1] = give(id, job)
        else
          passed = passed + 1
          more = true
        end
      end
    end
  end
  if #claims > 0 and A.by ~= '' then ring('node:' .. A.node) end
  local first = call('ZRANGE', P .. 'due', 0, 0, 'WITHSCORES')
  if passed >= PASSED_OVER or jobs.resuming() then return {claims, 0} end
  return {claims, first[2] and math.max(0, tonumber(first[2]) - now) or -1}
end

function calls.assigned()
  local lost = member_lost(A.node, A.incarnation)
  if lost then return lost end
  local claims = {}
  for _, id in ipairs(call('SMEMBERS', key('w', A.node))) do
    local packed = call('HGET', key('a', id), A.node)
    local row = packed and cmsgpack.unpack(packed)
    if row and not row.running then
      row.running = true
      call('HSET', key('a', id), A.node, cmsgpack.pack(row))
      if get(id, 'state') == 'assigned' then claims[#claims + 1] = {whole(id), row.fence, jobs.turn_of(id)} end
    end
  end
  return claims
end

function calls.cancel()
  if not living(A.task_id) then return false end
  ring_holders(A.task_id)
  finish_task(A.task_id, 'cancelled', '', A.error)
  note('cancel', A.task_id)
  return true
end

function calls.replay()
  local replayed = 0
  for _, id in ipairs(A.task_ids) do
    if get(id, 'state') == 'dead' and jobs.unaccount(id) then
      call('HDEL', key('t', id), 'ended', 'error', 'deadline', 'attempts', 'losses')
      settle(id, now)
      count('replayed')
      note('replay', id)
      replayed = replayed + 1
    end
  end
  return replayed
end

function calls.task() return whole(A.task_id) end

-- Read those of a set of ids, after A.after, that are wanted; also says after which id to go on, if more may come. One
-- call looks at so many and no more, however few are wanted: nobody else is served meanwhile.
local LOOKED_AT = 1000
local function page(source, wanted, read)
  local found, after = {}, A.after
  local ids = call('ZRANGEBYLEX', source, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, LOOKED_AT)
  for _, id in ipairs(ids) do
    if wanted(id) then
      found[#found + 1] = read(id)
      if #found == A.limit then return {found, false} end
    end
    after = id
  end
  return {found, #ids == LOOKED_AT and after}
end

function calls.tasks()
  local source = LISTED[A.state] and key('tasks', A.state) or P .. 'ids'
  local of_job = A.job_id and key('jt', A.job_id)
  if of_job and (not LISTED[A.state] or call('ZCARD', of_job) < call('ZCARD', source)) then source = of_job end
  return page(source, function(id)
    local state, queue, job = unpack(call('HMGET', key('t', id), 'state', 'queue', 'job'))
    return (not A.state or state == A.state) and (not A.queue or queue == A.queue)
      and (not A.job_id or job == A.job_id)
  end, whole)
end

function calls.assignments()
  local found = {}
  for _, row in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
    local id, node = row:match('^([^\31]*)\31(.*)$')
    if not A.node or A.node == node then
      for _, a in ipairs(assignments_of(id)) do
        if a.node == node then found[#found + 1] = a end
      end
    end
  end
  return found
end

function calls.statistics()
  local oldest = {}
  for _, lane in ipairs(call('ZRANGE', P .. 'lanes', 0, -1)) do
    local id = call('ZRANGE', key('l', lane), 0, 0)[1]
    oldest[#oldest + 1] = {lane, now - tonumber(get(id, 'ready_since'))}
  end
  return {call('HGETALL', P .. 'tally'), call('HGETALL', P .. 'cnt'), oldest}
end

function calls.configure_queue()
  local config = unpacked('queues', A.queue) or {max_waiting = 0, paused = 0}
  if A.max_waiting then config.max_waiting = A.max_waiting end
  if A.paused ~= nil then config.paused = A.paused and 1 or 0 end
  call('HSET', P .. 'queues', A.queue, cmsgpack.pack(config))
  ring('ready')
end

function calls.queues() return call('HGETALL', P .. 'queues') end

function calls.reserve()
  local same = 0
  for _, m in ipairs(members()) do
    if m.spawn_id == A.spawn_id or m.node == A.member.node then return false end
    if m.role == A.member.role and m.state ~= 'draining' then same = same + 1 end
  end
  if same >= A.limit then return false end
  A.member.joined = now
  put_member(A.member, A.grace)
  note('spawn', A.member.node, A.by, A.member.role)
  return true
end

function calls.join()
  local notes = {}
  for _, m in ipairs(members()) do
    if m.spawn_id ~= '' and m.spawn_id == A.member.spawn_id and m.state == 'joining' then
      notes[#notes + 1] = m.node
    elseif m.node == A.member.node and m.incarnation ~= A.member.incarnation then
      return refuse('name', m.node, m.pid, m.host, m.lease_until - now)
    end
  end
  for _, node in ipairs(notes) do call('HDEL', P .. 'members', node) end
  give_back(A.member.node, 'its node joined anew')
  A.member.joined = now
  put_member(A.member, A.ttl)
  note('join', A.member.node, '', A.member.role)
  ring('lead')
end

function calls.renew()
  local lost, before = member_lost(A.member.node, A.member.incarnation)
  if lost then return lost end
  A.member.joined = before.joined
  if before.state == 'draining' then A.member.state = 'draining' end
  put_member(A.member, A.ttl)
  local held = {}
  for _, id in ipairs(call('SMEMBERS', key('w', A.member.node))) do
    local packed = call('HGET', key('a', id), A.member.node)
    if packed then
      local row = cmsgpack.unpack(packed)
      call('ZADD', P .. 'leases', now + A.lease, id .. SEP .. A.member.node)
      held[#held + 1] = {id, row.fence, row.running}
    end
  end
  return {now, held, A.member.state}
end

function calls.leave()
  local member = unpacked('members', A.node)
  if member and member.incarnation == A.incarnation then
    call('HDEL', P .. 'members', A.node)
    give_back(A.node, A.reason ~= '' and A.reason or 'its node left')
    note('leave', A.node, '', A.reason)
    ring('lead')
  end
end

function calls.drain()
  local member = unpacked('members', A.node)
  if not member or member.state == 'draining' then return false end
  member.state = 'draining'
  call('HSET', P .. 'members', A.node, cmsgpack.pack(member))
  note('retire', A.node)
  ring('node:' .. A.node)
  return true
end

function calls.members() return members() end

function calls.acquire()
  local held = unpacked('locks', A.name)
  local fence
  if held and held.lease_until > now then
    if held.holder ~= A.holder then return held end
    fence = held.fence
  else
    if held then note('lock-expired', A.name, held.holder, '' .. held.fence) end
    fence = draw('fence')
    note('lock', A.name, A.holder, '' .. fence)
  end
  held = {name = A.name, holder = A.holder, fence = fence, lease_until = now + A.ttl}
  call('HSET', P .. 'locks', A.name, cmsgpack.pack(held))
  return held
end

function calls.renew_lock()
  local held = unpacked('locks', A.name)
  if not held or held.fence ~= A.fence or held.lease_until <= now then return false end
  held.lease_until = now + A.ttl
  call('HSET', P .. 'locks', A.name, cmsgpack.pack(held))
  return true
end

function calls.release()
  local held = unpacked('locks', A.name)
  if not held or held.fence ~= A.fence then return false end
  call('HDEL', P .. 'locks', A.name)
  note('unlock', A.name, held.holder, '' .. held.fence)
  ring('lead')
  return held.lease_until > now
end

function calls.lock()
  local held = unpacked('locks', A.name)
  return held and held.lease_until > now and held or false
end

function calls.promote() return promote(A.limit) end

function calls.survey()
  local rows = {expired_members = members(true), expired = {}, orphans = {}, duplicates = {}, unassigned = {},
    overdue = call('ZRANGEBYSCORE', P .. 'deadlines', '-inf', now, 'LIMIT', 0, A.limit), unserved = {}, now = now}
  local live, doubled = {}, {}
  for _, m in ipairs(members()) do live[m.node] = m.incarnation end
  for _, row in ipairs(call('ZRANGE', P .. 'leases', 0, -1)) do
    local id, node = row:match('^([^\31]*)\31(.*)$')
    local all = assignments_of(id)
    for _, a in ipairs(all) do
      if a.node == node then
        if (a.lease_until <= now or live[node] ~= a.incarnation) and #rows.expired < A.limit then
          table.insert(rows.expired, a)
        end
        if get(id, 'state') ~= 'assigned' and #rows.orphans < A.limit then table.insert(rows.orphans, a) end
      end
    end
    if #all > 1 and not doubled[id] and #rows.duplicates < A.limit then
      doubled[id] = true
      table.insert(rows.duplicates, all)
    end
  end
  for _, id in ipairs(call('ZRANGE', key('tasks', 'assigned'), 0, -1)) do
    if #rows.unassigned == A.limit then break end
    if call('EXISTS', key('a', id)) == 0 then table.insert(rows.unassigned, id) end
  end
  local known = known_ops()
  if next(known) then
    for _, lane in ipairs(call('ZRANGE', P .. 'lanes', 0, -1)) do
      local _, op = lane_parts(lane)
      if not known[op] then
        for _, id in ipairs(call('ZRANGE', key('l', lane), 0, A.limit - #rows.unserved - 1)) do
          if tonumber(get(id, 'ready_since')) < now - A.unknown_after and #rows.unserved < A.limit then
            table.insert(rows.unserved, id)
          end
        end
      end
    end
  end
  return rows
end

local function repair_one(r, by)
  if r.kind == 'expire' then
    local member = unpacked('members', r.node)
    if not member or member.incarnation ~= r.reason or member.lease_until > now then return false end
    call('HDEL', P .. 'members', r.node)
    note('expire', r.node, by)
    return true
  elseif r.kind == 'revoke' then
    if r.loss then return lose(r.task_id, r.node, r.fence, r.reason, by, r.payload) end
    local _, dropped = drop(r.task_id, r.node, r.fence, r.reason, by)
    return dropped
  end
  if r.kind == 'requeue' then
    if get(r.task_id, 'state') ~= 'assigned' or call('EXISTS', key('a', r.task_id)) == 1 then return false end
    back_in_line(r.task_id)
    count('requeued')
    note('requeue', r.task_id, by)
    return true
  end
  if living(r.task_id) then
    die(r.task_id, r.payload, by)
    return true
  end
  return false
end

function calls.repair()
  local applied = 0
  for _, r in ipairs(A.repairs) do
    if repair_one(r, A.guard and A.guard.lock or '') then applied = applied + 1 end
    if r.node ~= '' then ring('node:' .. r.node) end
  end
  return applied
end

local function remove_task(id)
  local queue, state, job = unpack(call('HMGET', key('t', id), 'queue', 'state', 'job'))
  tally(queue, state, -1)
  call('DEL', key('t', id), key('ab', id))
  if LISTED[state] then call('ZREM', key('tasks', state), id) end
  for _, set_of in ipairs({'ids', 'ended'}) do call('ZREM', P .. set_of, id) end
  if job then call('ZREM', key('jt', job), id) end
end

function calls.purge()
  call('XTRIM', P .. 'ev', 'MAXLEN', A.journal)
  local ids = call('ZRANGEBYSCORE', P .. 'ended', '-inf', now - A.older_than, 'LIMIT', 0, A.limit)
  for _, id in ipairs(ids) do remove_task(id) end
  return #ids + jobs.purge(now - A.older_than, A.limit - #ids)
end

function calls.note() note(A.kind, A.subject, A.by, A.detail) end

function calls.events()
  return call('XRANGE', P .. 'ev', A.after == '' and '-' or '(' .. A.after, '+', 'COUNT', A.limit)
end

function calls.put()
  if A.value == '' then call('HDEL', P .. 'cfg', A.key) else call('HSET', P .. 'cfg', A.key, A.value) end
end

function calls.get() return call('HGET', P .. 'cfg', A.key) or '' end

-- For tests: what no other call would do.
function calls.plant()
  local fence = draw('fence')
  call('HSET', key('a', A.task_id), A.node, cmsgpack.pack({
    incarnation = A.incarnation, fence = fence, attempt = 1, since = now, running = true, by = 'test'}))
  call('ZADD', P .. 'leases', now + 60, A.task_id .. SEP .. A.node)
  call('SADD', key('w', A.node), A.task_id)
  return fence
end

function calls.unassign()
  for _, node in ipairs(call('HKEYS', key('a', A.task_id))) do remove_assignment(A.task_id, node) end
end

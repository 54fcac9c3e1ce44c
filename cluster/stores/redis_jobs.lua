-- The jobs of the Redis engine; joined to redis.lua.
--
--   j:ID         hash, a job                            jobs, jobs:STATE   zsets of ids
--   jn:NAME      zset time -> id, who had the name      names        hash, the living ones
--   in:ID        zset seq -> seq, rows to be consumed   ib:ID        hash seq -> row
--   is:ID        hash signal -> seq                     iy:ID        hash signal -> reply
--   consumed     zset time -> ID\31SIGNAL               restarts     hash, start -> the job it was merged into
--   tm:ID        zset time -> timer                     tb:ID        hash timer -> body
--   ti:ID        hash timer -> seq, those that were due and are rows now
--   r:ID         hash seq -> result                     ro:ID        zset seq -> seq, those not forgotten
--   ri:ID        zset index -> seq                      jt:ID        zset of ids, its tasks
--   js:STATE:ID  zset rank -> id, its tasks that have not ended and count, by state
--   leftover     set of ids, those whose last change of state has not reached all their tasks yet
--   fed          zset time -> id, until when somebody has to feed it again
--   jobs-ended   zset time -> id, without a ttl         jobs-forget  zset time -> id, when to forget
--
-- A change of state that concerns many tasks reaches the first of them at once, and those that run all at once. Every
-- claim and purge carries it on; until it has reached a task, `admit` does for it what is to be done.
local STEP = 1000 -- tasks that a change of a job's state reaches at once
local TURN_ROWS, TURN_BYTES = 100, 1048576
local JOB_ENDED = {finished = true, failed = true, cancelled = true, terminated = true}
local AT_REST = {paused = true, suspended = true}

local touched, rung = {}, {} -- job id -> who changed its counts; job id -> to be rung

local function job_get(id, field) return call('HGET', key('j', id), field) end
local function job_set(id, ...) call('HSET', key('j', id), ...) end

local function standing(id)
  local state, cls, notify, fail_fast, hidden =
    unpack(call('HMGET', key('j', id), 'state', 'cls', 'notify', 'fail_fast', 'hidden'))
  if not state then return nil end
  return {state = state, cls = cls, notify = notify, fail_fast = fail_fast == '1', hidden = hidden == '1',
    ended = JOB_ENDED[state] or false}
end

local function put_state(id, old, new)
  if old then call('ZREM', key('jobs', old), id) end
  if new then
    call('ZADD', key('jobs', new), 0, id)
    job_set(id, 'state', new)
  end
end

local function changed(id)
  call('HINCRBY', key('j', id), 'version', 1)
  job_set(id, 'updated', now)
  rung[id] = true
end

function jobs.ring()
  for id in pairs(rung) do ring('job:' .. id) end
end

-- The counts of a job change, or it may be complete; `settle` looks.
local function gather(id, by, counts)
  for name, number in pairs(counts or {}) do
    if number ~= 0 then call('HINCRBY', key('j', id), name, number) end
  end
  if counts and counts.total then job_set(id, 'told', 0) end
  finally = jobs.settle
  touched[id] = by and by ~= '' and by or touched[id] or ''
end

-- ---------------------------------------------------------------------------------------------- the inbox

-- Write a row. One with `once` is known for longer than it is there, so that it is known when it comes again.
local function put(id, row)
  row.seq = draw('inbox')
  row.at = row.at or now
  call('HSET', key('ib', id), row.seq, cmsgpack.pack(row))
  call('ZADD', key('in', id), row.seq, row.seq)
  if row.once then call('HSET', key('is', id), row.once, row.seq) end
  if row.kind == 'timer' then call('HSET', key('ti', id), row.row_id, row.seq) end
end

local function consumed_once(id, once) call('ZADD', P .. 'consumed', now, id .. SEP .. once) end

local function remove_row(id, seq)
  local row = cmsgpack.unpack(call('HGET', key('ib', id), seq))
  if row.kind == 'timer' then call('HDEL', key('ti', id), row.row_id) end
  call('HDEL', key('ib', id), seq)
  call('ZREM', key('in', id), seq)
end

local function consume(id, seq)
  for _, each in ipairs(call('ZRANGEBYSCORE', key('in', id), '-inf', seq)) do
    local row = cmsgpack.unpack(call('HGET', key('ib', id), each))
    if row.once then consumed_once(id, row.once) end
    remove_row(id, each)
  end
end

-- When the next row of a job is due: 0 when one is there.
local function next_row(id)
  if call('ZCARD', key('in', id)) > 0 then return 0 end
  local first = call('ZRANGE', key('tm', id), 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2])
end

local function remove_timer(id, name)
  call('ZREM', key('tm', id), name)
  call('HDEL', key('tb', id), name)
end

-- What a turn is given. Timers that are due take their places in the order first.
local function take(id)
  local due = call('ZRANGEBYSCORE', key('tm', id), '-inf', now, 'WITHSCORES')
  for i = 1, #due, 2 do
    put(id, {kind = 'timer', row_id = due[i], body = call('HGET', key('tb', id), due[i]), at = tonumber(due[i + 1])})
    remove_timer(id, due[i])
  end
  local rows, room = {}, TURN_BYTES
  for _, seq in ipairs(call('ZRANGE', key('in', id), 0, TURN_ROWS - 1)) do
    local row = cmsgpack.unpack(call('HGET', key('ib', id), seq))
    room = room - #(row.body or '')
    if room < 0 and #rows > 0 then break end
    rows[#rows + 1] = row
  end
  return rows
end

local function set_timers(id, timers)
  for _, timer in ipairs(timers) do
    local seq = call('HGET', key('ti', id), timer.name)
    if seq then remove_row(id, seq) end
    remove_timer(id, timer.name)
    if timer.after then
      call('ZADD', key('tm', id), now + timer.after, timer.name)
      call('HSET', key('tb', id), timer.name, timer.body)
    end
  end
end

-- ---------------------------------------------------------------------------------------------- results

local function result(id, seq) return cmsgpack.unpack(call('HGET', key('r', id), seq)) end

-- Of those that begin at `index` or before, the last one.
local function result_before(id, index)
  local seq = call('ZREVRANGEBYSCORE', key('ri', id), index, '-inf', 'LIMIT', 0, 1)[1]
  return seq and result(id, seq)
end

-- Keep a result, unless something of its inputs has one: rows never overlap.
local function put_result(id, row, task_id)
  local before = result_before(id, row.index + row.count - 1)
  if before and before.index + before.count > row.index then return false end
  local seq = draw('result')
  call('HSET', key('r', id), seq, cmsgpack.pack({index = row.index, count = row.count, value = row.value,
    failed = row.failed, seq = seq, task_id = task_id}))
  call('ZADD', key('ro', id), seq, seq)
  call('ZADD', key('ri', id), row.index, seq)
  return true
end

function jobs.keep_results(task_id, results)
  if not results or #results == 0 then return nil end
  local id, counted = unpack(call('HMGET', key('t', task_id), 'job', 'counted'))
  if not counted then return nil end
  local failure
  for _, row in ipairs(results) do
    if put_result(id, row, task_id) then
      call('HINCRBY', key('t', task_id), 'recorded', row.count)
      if row.failed then
        call('HINCRBY', key('t', task_id), 'unwell', row.count)
        failure = failure or row.value
      end
    end
  end
  rung[id] = true
  return failure
end

-- Look at the results that have something of [low, high), by index, until the function says true.
local function each_result(id, low, high, look)
  local before = result_before(id, low)
  local from = before and before.index or low
  while true do
    local seqs = call('ZRANGEBYSCORE', key('ri', id), from, '(' .. high, 'LIMIT', 0, 500)
    for _, seq in ipairs(seqs) do
      local row = result(id, seq)
      if row.index + row.count > low and look(row) then return end
      from = '(' .. row.index
    end
    if #seqs < 500 then return end
  end
end

local function fill_results(id, task_id, index, weight, error)
  local start = index
  local function fill(to)
    if to > start then
      put_result(id, {index = start, count = to - start, value = error, failed = true}, task_id)
    end
  end
  each_result(id, index, index + weight, function(row)
    fill(row.index)
    start = math.max(start, row.index + row.count)
  end)
  fill(index + weight)
  rung[id] = true
end

local function remove_result(id, seq)
  call('HDEL', key('r', id), seq)
  call('ZREM', key('ro', id), seq)
  call('ZREM', key('ri', id), seq)
end

-- ---------------------------------------------------------------------------------------------- turns

-- Put a job's turn where it belongs: in the line when something is due for it, to rest when not. One that runs, or
-- waits to be tried again, is left alone; `over`: it has just ended.
local function arrange_turn(id, over)
  local job, state = standing(id), get(id, 'state')
  if not job or job.cls == '' or not state or not (over or state == 'idle' or state == 'ready') then return end
  local due = job.state ~= 'suspended' and next_row(id)
  if due and due <= now then
    if state ~= 'ready' then make_ready(id) end
    return
  end
  set(id, 'due', due or 0)
  move(id, 'idle')
end

function jobs.is_turn(task_id)
  local job = get(task_id, 'job') == task_id and standing(task_id)
  return job and job.cls ~= ''
end

function jobs.turn_of(task_id)
  if not jobs.is_turn(task_id) then return false end
  local rows = take(task_id)
  return {{task_id, call('HGETALL', key('j', task_id))}, rows}
end

-- ---------------------------------------------------------------------------------------------- states

function jobs.moved(id, task_id, from, to, rank)
  if from then call('ZREM', key('js', from .. ':' .. id), task_id) end
  if LIVING[to] then call('ZADD', key('js', to .. ':' .. id), rank or 0, task_id) end
end

-- Let a change of a job's state reach so many more of its tasks; return how many it was.
local function carry_on(id, state, limit)
  local done = 0
  if JOB_ENDED[state] then
    local running = call('ZRANGE', key('js', 'assigned:' .. id), 0, -1)
    -- The blocked ones before the heads that they wait for.
    for _, from in ipairs({'blocked', 'held', 'ready', 'scheduled'}) do
      if done < limit then
        for _, task_id in ipairs(call('ZRANGE', key('js', from .. ':' .. id), 0, limit - done - 1)) do
          finish_task(task_id, 'cancelled')
          done = done + 1
        end
      end
    end
    for _, task_id in ipairs(running) do
      ring_holders(task_id)
      note('cancel', task_id)
      finish_task(task_id, 'cancelled')
    end
  else
    local from, to = 'held', 'ready'
    if AT_REST[state] then from, to = to, from end
    for _, task_id in ipairs(call('ZRANGE', key('js', from .. ':' .. id), 0, limit - 1)) do
      if to == 'ready' then set(task_id, 'ready_since', now) end
      move(task_id, to)
      done = done + 1
    end
  end
  call(done == limit and 'SADD' or 'SREM', P .. 'leftover', id)
  return done
end

function jobs.carry_on_all(limit)
  local done = 0
  for _, id in ipairs(call('SRANDMEMBER', P .. 'leftover', 20)) do
    if done < limit then done = done + carry_on(id, job_get(id, 'state'), limit - done) end
  end
  return done
end

-- Whether some job is resumed, and the next claim will find more.
function jobs.resuming()
  for _, id in ipairs(call('SMEMBERS', P .. 'leftover')) do
    if job_get(id, 'state') == 'running' then return true end
  end
  return false
end

local function set_state(id, old, new, by, reason)
  put_state(id, old, new)
  job_set(id, 'by', by, 'reason', reason)
  note('job-state', id, by, old .. ' ' .. new .. ' ' .. reason)
  changed(id)
  carry_on(id, new, STEP)
end

local function close(id)
  job_set(id, 'closed', 1)
  call('ZREM', P .. 'fed', id)
end

-- End a living job, and its tasks; its turn, if it has not ended, gets this state.
local function end_job(id, state, by, reason, error, turn)
  local old, cls, folded, ttl = unpack(call('HMGET', key('j', id), 'state', 'cls', 'folded', 'ttl'))
  put_state(id, old, state)
  job_set(id, 'ended', now, 'by', by, 'reason', reason)
  if error then job_set(id, 'error', error) end
  if folded ~= '' then call('HDEL', P .. 'names', folded) end
  if ttl then
    call('ZADD', P .. 'jobs-forget', now + tonumber(ttl), id)
  else
    call('ZADD', P .. 'jobs-ended', now, id)
  end
  call('DEL', key('tm', id), key('tb', id))
  call('ZREM', P .. 'fed', id)
  count('jobs_' .. state)
  note('job-state', id, by, old .. ' ' .. state .. ' ' .. reason)
  changed(id)
  if cls ~= '' and living(id) then
    if not turn then ring_holders(id) end
    finish_task(id, turn or 'cancelled', by)
  end
  carry_on(id, state, STEP)
end

function jobs.fail_fast(id, error, by)
  local job = standing(id)
  if job and job.fail_fast and not job.ended then end_job(id, 'failed', by, 'a task failed', error) end
end

function jobs.end_turn(id, e, fence, node)
  local job = standing(id)
  consume(id, e.consumed)
  for _, reply in ipairs(e.replies or {}) do
    if call('HEXISTS', key('is', id), reply[1]) == 1 then call('HSET', key('iy', id), reply[1], reply[2]) end
  end
  set_timers(id, e.timers or {})
  call('HINCRBY', key('j', id), 'turns', 1)
  job_set(id, 'data', e.data)
  if e.close then close(id) end
  if e.result then job_set(id, 'result', e.result) end
  if e.error then job_set(id, 'error', e.error) end
  gather(id, node)
  count('turns')
  note('turn', id, node, fence .. ' ' .. e.consumed)
  local state = e.state
  if not state or state == 'created' then state = job.state == 'created' and 'running' or job.state end
  if JOB_ENDED[state] then
    end_job(id, state, node, e.reason, nil, 'done')
    return
  end
  for _, other in ipairs(call('HKEYS', key('a', id))) do remove_assignment(id, other) end
  set(id, 'attempts', 0, 'losses', 0)
  if state ~= job.state then set_state(id, job.state, state, node, e.reason) end
  arrange_turn(id, true)
end

-- ---------------------------------------------------------------------------------------------- its tasks

function jobs.enlist(new)
  local job = standing(new.job_id)
  if not job then return 0 end
  if job.ended then return nil end
  local counted = new.index and new.weight or 1
  gather(new.job_id, '', {total = counted})
  return counted
end

-- Hold a task that has just become ready, if its job is paused.
-- While a job is resumed what comes is held too, so that it passes nothing that waits for that.
function jobs.hold(task_id, id)
  local state = job_get(id, 'state')
  if AT_REST[state] or not JOB_ENDED[state] and call('SISMEMBER', P .. 'leftover', id) == 1 then move(task_id, 'held') end
end

-- Whether a ready task may be given to a worker now; if not, it is in the line no more.
function jobs.admit(task_id)
  local id, counted = unpack(call('HMGET', key('t', task_id), 'job', 'counted'))
  local job = standing(id)
  if not job then return true end
  if job.cls ~= '' and task_id == id then
    if job.state == 'suspended' then arrange_turn(id) end
    return job.state ~= 'suspended'
  end
  if not counted then return true end
  if job.ended then finish_task(task_id, 'cancelled') elseif AT_REST[job.state] then move(task_id, 'held') end
  return not (job.ended or AT_REST[job.state])
end

-- Tell a job that one of its tasks has ended.
function jobs.account(id, task_id, state, by, error)
  local job = standing(id)
  if not job or job.ended then return end
  local counted, recorded, unwell, op, index, weight, meta, result_of, error_of = unpack(call('HMGET',
    key('t', task_id), 'counted', 'recorded', 'unwell', 'op', 'index', 'weight', 'meta', 'result', 'error'))
  if job.cls ~= '' and task_id == id then -- a turn that ended in another way than by the job's end
    end_job(id, state == 'cancelled' and 'terminated' or 'failed', by, 'its turn is ' .. state, error)
    return
  end
  if not counted then return end
  counted, recorded, unwell = tonumber(counted), tonumber(recorded or 0), tonumber(unwell or 0)
  index, weight = tonumber(index or nil), tonumber(weight or 1)
  local good = recorded - unwell
  if state == 'done' then gather(id, by, {done = counted - unwell, failed = unwell})
  elseif state == 'dead' then gather(id, by, {done = good, failed = counted - good})
  else gather(id, by, {done = good, failed = unwell, cancelled = counted - recorded})
  end
  if index and state ~= 'done' then fill_results(id, task_id, index, weight, error or error_of or '') end
  if job.cls ~= '' and job.notify == 'each' then
    local body = state == 'done' and result_of or state ~= 'done' and (error or error_of) or ''
    put(id, {kind = 'ended', row_id = task_id, name = op, body = body, state = state, index = index,
      weight = weight, meta = meta or ''})
    arrange_turn(id)
  end
  if state == 'dead' then jobs.fail_fast(id, error or '', by) end
end

-- Take that back, for a task that is to be tried again; false when its job has ended.
function jobs.unaccount(task_id)
  local id, counted, recorded, unwell =
    unpack(call('HMGET', key('t', task_id), 'job', 'counted', 'recorded', 'unwell'))
  local job = id and standing(id)
  if not job or not (counted or task_id == id) then return true end
  if job.ended then return false end
  local good = tonumber(recorded or 0) - tonumber(unwell or 0)
  gather(id, '', {done = -good, failed = good - tonumber(counted)})
  local index, weight = unpack(call('HMGET', key('t', task_id), 'index', 'weight'))
  if index then
    index, weight = tonumber(index), tonumber(weight or 1)
    each_result(id, index, index + weight, function(row)
      if row.failed and row.task_id == task_id then remove_result(id, row.seq) end
    end)
  end
  set(task_id, 'recorded', good, 'unwell', 0)
  return true
end

-- Finish the jobs of which all tasks have ended, or tell them so.
function jobs.settle()
  while next(touched) do
    local id, by = next(touched)
    touched[id] = nil
    local state, cls, notify, told, turns, closed, total, done, failed, cancelled = unpack(call('HMGET', key('j', id),
      'state', 'cls', 'notify', 'told', 'turns', 'closed', 'total', 'done', 'failed', 'cancelled'))
    if state then changed(id) end
    if state and not JOB_ENDED[state] and closed == '1'
      and tonumber(total) == tonumber(done) + tonumber(failed) + tonumber(cancelled) then
      if cls == '' then
        end_job(id, 'finished', by, '')
      elseif notify == 'last' and told ~= '1' and tonumber(turns) > 0 then
        -- Not before its first turn, which may spawn the tasks that are meant.
        job_set(id, 'told', 1)
        put(id, {kind = 'all-ended', row_id = ''})
        arrange_turn(id)
      end
    end
  end
end

-- ---------------------------------------------------------------------------------------------- forgetting

-- Remove so much of an ended job; when it is less than the limit, it is gone.
local function forget(id, limit)
  local done = carry_on(id, 'terminated', limit)
  local cursor = '-'
  while done < limit do
    local tasks = call('ZRANGEBYLEX', key('jt', id), cursor, '+', 'LIMIT', 0, limit - done)
    for _, task_id in ipairs(tasks) do
      cursor = '(' .. task_id
      if task_id == id or get(task_id, 'counted') then -- not one that only bears its id
        remove_task(task_id)
        done = done + 1
      end
    end
    if #tasks == 0 then break end
  end
  if done < limit then
    for _, seq in ipairs(call('ZRANGE', key('ri', id), 0, limit - done - 1)) do
      remove_result(id, seq)
      done = done + 1
    end
  end
  if done < limit then
    for _, seq in ipairs(call('ZRANGE', key('in', id), 0, limit - done - 1)) do
      remove_row(id, seq)
      done = done + 1
    end
  end
  local signals
  cursor = '0'
  while done < limit do
    cursor, signals = unpack(call('HSCAN', key('is', id), cursor, 'COUNT', 100))
    for i = 1, #signals, 2 do
      call('HDEL', key('is', id), signals[i])
      call('HDEL', key('iy', id), signals[i])
      call('HDEL', P .. 'restarts', signals[i])
      call('ZREM', P .. 'consumed', id .. SEP .. signals[i])
      done = done + 1
    end
    if cursor == '0' then break end
  end
  if done < limit then
    put_state(id, job_get(id, 'state'))
    call('ZREM', key('jn', job_get(id, 'folded')), id)
    call('DEL', key('j', id), key('iy', id))
    for _, set_of in ipairs({'jobs', 'jobs-ended', 'jobs-forget'}) do call('ZREM', P .. set_of, id) end
    call('SREM', P .. 'leftover', id)
    done = done + 1
  end
  return math.min(done, limit)
end

function jobs.purge(before, limit)
  local done = jobs.carry_on_all(limit)
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'fed', '-inf', now, 'LIMIT', 0, math.max(0, limit - done))) do
    end_job(id, 'terminated', '', string.format('nobody has fed it for %g s', tonumber(job_get(id, 'feed_ttl'))))
    done = done + 1
  end
  for set_of, time in pairs({['jobs-forget'] = now, ['jobs-ended'] = before}) do
    for _, id in ipairs(call('ZRANGEBYSCORE', P .. set_of, '-inf', time, 'LIMIT', 0, limit)) do
      if done < limit then done = done + forget(id, limit - done) end
    end
  end
  if done < limit then
    for _, row in ipairs(call('ZRANGEBYSCORE', P .. 'consumed', '-inf', '(' .. before, 'LIMIT', 0, limit - done)) do
      local id, once = row:match('^([^\31]*)\31(.*)$')
      call('HDEL', key('is', id), once)
      call('HDEL', key('iy', id), once)
      call('HDEL', P .. 'restarts', once)
      call('ZREM', P .. 'consumed', row)
      done = done + 1
    end
  end
  return done
end

-- ---------------------------------------------------------------------------------------------- calls

function calls.start()
  local new = A.job
  local id = new.job_id
  local before = standing(id)
  if before and not before.hidden then return {id, 'known'} end
  if before or (new.cls ~= '' and get(id, 'state')) then return refuse('job-id', id, before and 1 or 0) end
  local restart = 'restart' .. SEP .. id -- which no signal's id is mistaken for
  local merged = call('HGET', P .. 'restarts', restart)
  if merged then return {merged, 'merged'} end
  merged = new.folded ~= '' and call('HGET', P .. 'names', new.folded)
  if merged then
    if job_get(merged, 'cls') ~= '' then
      call('HSET', P .. 'restarts', restart, merged)
      put(merged, {kind = 'restart', row_id = id, body = new.params, by = new.by, once = restart})
      arrange_turn(merged)
      changed(merged)
    end
    return {merged, 'merged'}
  end
  local refusal = no_room()
  if refusal then return refusal end
  put_state(id, nil, new.cls == '' and 'running' or 'created')
  job_set(id, 'cls', new.cls, 'name', new.name, 'folded', new.folded,
    'queue', new.queue, 'description', new.description, 'created', now, 'updated', now, 'by', new.by, 'reason', '',
    'params', new.params, 'meta', new.meta, 'closed', new.closed and 1 or 0, 'notify', new.notify,
    'fail_fast', new.fail_fast and 1 or 0, 'total', 0, 'done', 0, 'failed', 0, 'cancelled', 0, 'turns', 0,
    'version', 0)
  if new.ttl then job_set(id, 'ttl', new.ttl) end
  if new.feed_ttl then
    job_set(id, 'feed_ttl', new.feed_ttl)
    if not new.closed then call('ZADD', P .. 'fed', now + new.feed_ttl, id) end
  end
  call('ZADD', P .. 'jobs', 0, id)
  if new.folded ~= '' then
    call('HSET', P .. 'names', new.folded, id)
    call('ZADD', key('jn', new.folded), now, id)
  end
  count('jobs')
  note('job', id, new.by, new.cls)
  if new.cls ~= '' then
    put(id, {kind = 'start', row_id = id, body = new.params, by = new.by})
    write(A.turn, now, 0)
    make_ready(id)
  end
  for _, task in ipairs(A.tasks) do insert(task) end
  gather(id, new.by)
  return {id, 'new'}
end

function calls.close_job()
  local job = standing(A.job_id)
  if not job or job.ended then return false end
  close(A.job_id)
  gather(A.job_id)
  return true
end

function calls.feed()
  if not call('ZSCORE', P .. 'fed', A.job_id) then return false end
  call('ZADD', P .. 'fed', now + tonumber(job_get(A.job_id, 'feed_ttl')), A.job_id)
  return true
end

function calls.signal()
  local id, signal = A.job_id, A.signal
  local job = standing(id)
  if not job or job.hidden then return 'missing' end
  if call('HEXISTS', key('is', id), signal.signal_id) == 1 then return 'known' end
  if job.ended then return 'ended' end
  count('signals')
  note('signal', id, signal.by, signal.kind .. ' ' .. signal.name .. ' ' .. signal.signal_id)
  if job.cls == '' and (signal.kind == 'cancel' or signal.kind == 'finish') then
    call('HSET', key('is', id), signal.signal_id, 0)
    consumed_once(id, signal.signal_id)
    end_job(id, signal.kind == 'cancel' and 'cancelled' or 'finished', signal.by, signal.reason)
  else
    put(id, {kind = signal.kind, row_id = signal.signal_id, name = signal.name, body = signal.body, by = signal.by,
      once = signal.signal_id})
    arrange_turn(id)
    changed(id)
  end
  return 'taken'
end

function calls.reply()
  local reply = call('HGET', key('iy', A.job_id), A.signal_id)
  return reply and {reply}
end

local function whole_job(id)
  local fields = call('HGETALL', key('j', id))
  if #fields == 0 or job_get(id, 'hidden') then return false end
  return {id, fields}
end

function calls.change_job()
  local id, state = A.job_id, A.state
  local job = standing(id)
  if not job or job.hidden then return refuse('job-missing', id) end
  if job.ended or not (state == 'running' or state == 'terminated' or AT_REST[state]) then
    return refuse('job-state', id, job.state, state)
  end
  if state == 'terminated' then
    end_job(id, state, A.by, A.reason)
  elseif state ~= job.state and not (job.state == 'created' and state == 'running') then
    set_state(id, job.state, state, A.by, A.reason)
    arrange_turn(id)
  end
  return whole_job(id)
end

function calls.delete_job()
  local id = A.job_id
  local job = standing(id)
  if not job or job.hidden then return false end
  if not job.ended then end_job(id, 'terminated', '', 'deleted') end
  call('ZREM', P .. 'jobs-ended', id)
  call('ZADD', P .. 'jobs-forget', now, id)
  job_set(id, 'hidden', 1)
  note('job-deleted', id)
  rung[id] = true
  touched[id] = nil
  forget(id, 2 * STEP) -- `purge` removes the rest of a large one
  return true
end

function calls.job() return whole_job(A.job_id) end

function calls.job_named()
  local living_one = call('HGET', P .. 'names', A.folded)
  if living_one then return whole_job(living_one) end
  for _, id in ipairs(call('ZREVRANGE', key('jn', A.folded), 0, -1)) do
    local found = whole_job(id)
    if found then return found end
  end
  return false
end

function calls.jobs()
  return page(A.state and key('jobs', A.state) or P .. 'jobs', function(id)
    local state, folded, created, hidden =
      unpack(call('HMGET', key('j', id), 'state', 'folded', 'created', 'hidden'))
    return not hidden and (not A.state or state == A.state) and (not A.folded or folded == A.folded)
      and (not A.since or tonumber(created) >= A.since)
  end, whole_job)
end

-- A page of results: what there is room for, and one always. The function says true when it is full.
local function make_page()
  local found, room = {}, A.max_bytes
  return found, function(row)
    if row.forgotten then return false end
    room = room - #row.value
    if (room < 0 and #found > 0) or #found == A.limit then return true end
    found[#found + 1] = row
    return false
  end
end

function calls.results()
  local found, add = make_page()
  local seqs = call('ZRANGEBYSCORE', key('ro', A.job_id), '(' .. A.after, '+inf', 'LIMIT', 0, A.limit)
  for _, seq in ipairs(seqs) do
    if add(result(A.job_id, seq)) then break end
  end
  return found
end

function calls.results_at()
  local found, add = make_page()
  each_result(A.job_id, A.low, A.high, add)
  return found
end

function calls.acknowledge()
  local id = A.job_id
  local before = job_get(id, 'acknowledged')
  if call('EXISTS', key('j', id)) == 0 then return end
  job_set(id, 'acknowledged', math.max(tonumber(before or 0), A.seq))
  changed(id)
  if not A.forget then return end
  for _, seq in ipairs(call('ZRANGEBYSCORE', key('ro', id), '-inf', A.seq)) do
    local row = result(id, seq)
    if living(row.task_id) then -- its place is kept, so that the inputs get no second result
      row.value, row.forgotten = '', true
      call('HSET', key('r', id), seq, cmsgpack.pack(row))
      call('ZREM', key('ro', id), seq)
    else
      remove_result(id, seq)
    end
  end
end

function calls.checkpoint()
  if not runs(A.task_id, A.node, A.fence) then return false end
  if A.data then set(A.task_id, 'data', A.data) end
  local failure = jobs.keep_results(A.task_id, A.results)
  if failure then jobs.fail_fast(get(A.task_id, 'job'), failure, A.node) end
  return true
end

-- For tests: how many things there are of each kind, but for counts and the journal.
function calls.inventory()
  local found = {}
  for _, name in ipairs(A.keys) do
    local rest = name:sub(#P + 1)
    local kind = rest:match('^[^:]*')
    if rest ~= 'ev' and rest ~= 'cnt' and rest ~= 'n' and rest ~= 'tally' then
      local type = call('TYPE', name).ok
      local size = {hash = 'HLEN', zset = 'ZCARD', set = 'SCARD', list = 'LLEN'}
      found[kind] = (found[kind] or 0) + (size[type] and call(size[type], name) or 1)
    end
  end
  return found
end

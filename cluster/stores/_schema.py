"""The tables of the SQLite engine. Counts of tasks by state are kept by triggers, so no code can forget them."""

from __future__ import annotations

from typing import Final

# Those that have rows of a group.
OF_GROUPS: Final = (
    "task", "assignment", "absorbed", "job", "job_body", "inbox", "timer", "result", "member", "lock", "queue",
    "event", "counter", "config", "tally",
)  # fmt: skip

# Indices with a WHERE hold only the rows that are in that state: what has ended costs claims and scans nothing.
TABLES: Final = """
CREATE TABLE task (
    grp TEXT NOT NULL, id TEXT NOT NULL, queue TEXT NOT NULL, op TEXT NOT NULL, lane TEXT NOT NULL,
    state TEXT NOT NULL, rank INTEGER, priority INTEGER NOT NULL, seq INTEGER NOT NULL,
    created REAL NOT NULL, due REAL NOT NULL, deadline REAL, ended REAL, ready_since REAL,
    attempts INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0, max_losses INTEGER NOT NULL,
    partition_key TEXT, ordering_key TEXT, coalesce_key TEXT, merged_into TEXT NOT NULL DEFAULT '',
    job TEXT NOT NULL,
    -- what it counts for in its job, none without one; of these inputs, how many have results, and failed ones
    counted INTEGER NOT NULL DEFAULT 0, recorded INTEGER NOT NULL DEFAULT 0, unwell INTEGER NOT NULL DEFAULT 0,
    idx INTEGER, weight INTEGER NOT NULL DEFAULT 1, worker TEXT NOT NULL DEFAULT '', step TEXT NOT NULL DEFAULT '',
    data BLOB NOT NULL DEFAULT x'', meta BLOB NOT NULL, args BLOB NOT NULL, error BLOB, result BLOB,
    UNIQUE (grp, id)
);
CREATE INDEX task_ready ON task (grp, lane, rank) WHERE state = 'ready';
CREATE INDEX task_due ON task (grp, due) WHERE state = 'scheduled';
CREATE INDEX task_dormant ON task (grp, due) WHERE state = 'idle' AND due > 0;
CREATE INDEX task_assigned ON task (grp, id) WHERE state = 'assigned';
CREATE INDEX task_blocked ON task (grp, queue, ordering_key, seq) WHERE state = 'blocked';
CREATE INDEX task_key ON task (grp, queue, ordering_key)
    WHERE ordering_key IS NOT NULL AND state IN ('scheduled', 'ready', 'held', 'assigned');
CREATE INDEX task_coalesce ON task (grp, queue, op, coalesce_key, job)
    WHERE coalesce_key IS NOT NULL AND state = 'scheduled';
CREATE INDEX task_deadline ON task (grp, deadline) WHERE deadline IS NOT NULL AND ended IS NULL;
CREATE INDEX task_ended ON task (grp, ended) WHERE ended IS NOT NULL AND state <> 'dead';
CREATE INDEX task_dead ON task (grp, id) WHERE state = 'dead';
CREATE INDEX task_job ON task (grp, job, id) WHERE job <> '';
CREATE INDEX task_living ON task (grp, job, state, rank) WHERE counted > 0 AND ended IS NULL;

CREATE TABLE absorbed (grp TEXT, task_id TEXT, seq INTEGER, args BLOB, PRIMARY KEY (grp, task_id, seq)) WITHOUT ROWID;

CREATE TABLE assignment (
    grp TEXT, task_id TEXT, node TEXT, incarnation TEXT, fence INTEGER, attempt INTEGER, since REAL,
    lease_until REAL, running INTEGER, by TEXT, PRIMARY KEY (grp, task_id, node)
) WITHOUT ROWID;
CREATE INDEX assignment_node ON assignment (grp, node);
CREATE INDEX assignment_lease ON assignment (grp, lease_until);

-- Apart from what is long: the counts change with every task.
CREATE TABLE job (
    grp TEXT, id TEXT, cls TEXT, state TEXT, name TEXT, folded TEXT, queue TEXT, description TEXT,
    created REAL, updated REAL, ended REAL, by TEXT, reason TEXT,
    total INTEGER DEFAULT 0, done INTEGER DEFAULT 0, failed INTEGER DEFAULT 0, cancelled INTEGER DEFAULT 0,
    closed INTEGER, notify TEXT, fail_fast INTEGER, ttl REAL, acknowledged INTEGER DEFAULT 0,
    version INTEGER DEFAULT 1,
    turns INTEGER DEFAULT 0,     -- how many have ended
    told INTEGER DEFAULT 0,      -- its class was told that all tasks have ended
    leftover INTEGER DEFAULT 0,  -- its last change of state has not reached all of its tasks yet
    forget_at REAL, hidden INTEGER DEFAULT 0,
    feed_ttl REAL, fed_until REAL,  -- the latter while it is fed, and has to be
    PRIMARY KEY (grp, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX job_living ON job (grp, folded) WHERE folded <> '' AND ended IS NULL;
CREATE INDEX job_name ON job (grp, folded, created) WHERE folded <> '';
CREATE INDEX job_state ON job (grp, state, id);
CREATE INDEX job_fed ON job (grp, fed_until) WHERE fed_until IS NOT NULL;
CREATE INDEX job_leftover ON job (grp) WHERE leftover = 1;
CREATE INDEX job_ended ON job (grp, ended) WHERE ended IS NOT NULL AND forget_at IS NULL;
CREATE INDEX job_forget ON job (grp, forget_at) WHERE forget_at IS NOT NULL;
CREATE TABLE job_body (
    grp TEXT, id TEXT, params BLOB, data BLOB, result BLOB, error BLOB, meta BLOB, PRIMARY KEY (grp, id)
);

CREATE TABLE inbox (
    grp TEXT, job TEXT, seq INTEGER, kind TEXT, row_id TEXT, name TEXT, body BLOB, state TEXT, idx INTEGER,
    weight INTEGER, meta BLOB, by TEXT, at REAL,
    once TEXT,                   -- a signal's id, kept after it was consumed
    consumed REAL, reply BLOB, PRIMARY KEY (grp, job, seq)
);
CREATE INDEX inbox_timer ON inbox (grp, job, row_id) WHERE kind = 'timer';
CREATE INDEX inbox_new ON inbox (grp, job, seq) WHERE consumed IS NULL;
CREATE UNIQUE INDEX inbox_once ON inbox (grp, once, job) WHERE once IS NOT NULL;
CREATE INDEX inbox_consumed ON inbox (grp, consumed) WHERE consumed IS NOT NULL;
CREATE TABLE timer (grp TEXT, job TEXT, name TEXT, due REAL, body BLOB, PRIMARY KEY (grp, job, name));
CREATE INDEX timer_due ON timer (grp, job, due);
CREATE TABLE result (
    grp TEXT, job TEXT, seq INTEGER, idx INTEGER, count INTEGER, value BLOB, failed INTEGER, task_id TEXT,
    forgotten INTEGER DEFAULT 0, PRIMARY KEY (grp, job, seq)
);
CREATE UNIQUE INDEX result_index ON result (grp, job, idx);

CREATE TABLE member (
    grp TEXT, node TEXT, incarnation TEXT, role TEXT, state TEXT, slots INTEGER, running INTEGER, host TEXT,
    pid INTEGER, version TEXT, ops TEXT, queues TEXT, labels TEXT, spawn_id TEXT, joined REAL, lease_until REAL,
    idle_since REAL, PRIMARY KEY (grp, node)
) WITHOUT ROWID;

CREATE TABLE lock (grp TEXT, name TEXT, holder TEXT, fence INTEGER, lease_until REAL, PRIMARY KEY (grp, name));
CREATE TABLE queue (grp TEXT, name TEXT, max_waiting INTEGER DEFAULT 0, paused INTEGER DEFAULT 0,
    PRIMARY KEY (grp, name));
CREATE TABLE event (seq INTEGER PRIMARY KEY AUTOINCREMENT, grp TEXT, at REAL, kind TEXT, subject TEXT, by TEXT,
    detail TEXT);
CREATE TABLE counter (grp TEXT, name TEXT, value INTEGER, PRIMARY KEY (grp, name)) WITHOUT ROWID;
CREATE TABLE config (grp TEXT, key TEXT, value TEXT, PRIMARY KEY (grp, key)) WITHOUT ROWID;
CREATE TABLE grp (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE clock (boot TEXT PRIMARY KEY, offset REAL) WITHOUT ROWID;

CREATE TABLE tally (grp TEXT, queue TEXT, state TEXT, n INTEGER, PRIMARY KEY (grp, queue, state)) WITHOUT ROWID;
CREATE TRIGGER task_in AFTER INSERT ON task BEGIN
    INSERT INTO tally VALUES (new.grp, new.queue, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER task_moved AFTER UPDATE OF state ON task WHEN old.state <> new.state BEGIN
    UPDATE tally SET n = n - 1 WHERE grp = old.grp AND queue = old.queue AND state = old.state;
    INSERT INTO tally VALUES (new.grp, new.queue, new.state, 1) ON CONFLICT DO UPDATE SET n = n + 1;
END;
CREATE TRIGGER task_out AFTER DELETE ON task BEGIN
    UPDATE tally SET n = n - 1 WHERE grp = old.grp AND queue = old.queue AND state = old.state;
    DELETE FROM absorbed WHERE grp = old.grp AND task_id = old.id;
END;
"""

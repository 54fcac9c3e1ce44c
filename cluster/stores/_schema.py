"""The tables of the SQLite engine. Counts of tasks by state are kept by triggers, so no code can forget them."""

from __future__ import annotations

from typing import Final

# Indices with a WHERE hold only the rows that are in that state: what has ended costs claims and scans nothing.
TABLES: Final = """
CREATE TABLE task (
    grp TEXT NOT NULL, id TEXT NOT NULL, queue TEXT NOT NULL, op TEXT NOT NULL, lane TEXT NOT NULL,
    state TEXT NOT NULL, rank INTEGER, priority INTEGER NOT NULL, seq INTEGER NOT NULL,
    created REAL NOT NULL, due REAL NOT NULL, deadline REAL, ended REAL, ready_since REAL,
    attempts INTEGER NOT NULL DEFAULT 0, losses INTEGER NOT NULL DEFAULT 0, max_losses INTEGER NOT NULL,
    partition_key TEXT, ordering_key TEXT, coalesce_key TEXT, merged_into TEXT NOT NULL DEFAULT '',
    job TEXT NOT NULL, worker TEXT NOT NULL DEFAULT '', step TEXT NOT NULL DEFAULT '',
    data BLOB NOT NULL DEFAULT x'', meta BLOB NOT NULL, args BLOB NOT NULL, error BLOB, result BLOB,
    UNIQUE (grp, id)
);
CREATE INDEX task_ready ON task (grp, lane, rank) WHERE state = 'ready';
CREATE INDEX task_due ON task (grp, due) WHERE state = 'scheduled';
CREATE INDEX task_assigned ON task (grp, id) WHERE state = 'assigned';
CREATE INDEX task_blocked ON task (grp, queue, ordering_key, seq) WHERE state = 'blocked';
CREATE INDEX task_key ON task (grp, queue, ordering_key)
    WHERE ordering_key IS NOT NULL AND state IN ('scheduled', 'ready', 'assigned');
CREATE INDEX task_coalesce ON task (grp, queue, op, coalesce_key)
    WHERE coalesce_key IS NOT NULL AND state = 'scheduled';
CREATE INDEX task_deadline ON task (grp, deadline) WHERE deadline IS NOT NULL AND ended IS NULL;
CREATE INDEX task_ended ON task (grp, ended) WHERE ended IS NOT NULL AND state <> 'dead';
CREATE INDEX task_dead ON task (grp, id) WHERE state = 'dead';

CREATE TABLE absorbed (grp TEXT, task_id TEXT, seq INTEGER, args BLOB, PRIMARY KEY (grp, task_id, seq)) WITHOUT ROWID;

CREATE TABLE assignment (
    grp TEXT, task_id TEXT, node TEXT, incarnation TEXT, fence INTEGER, attempt INTEGER, since REAL,
    lease_until REAL, running INTEGER, by TEXT, PRIMARY KEY (grp, task_id, node)
) WITHOUT ROWID;
CREATE INDEX assignment_node ON assignment (grp, node);
CREATE INDEX assignment_lease ON assignment (grp, lease_until);

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

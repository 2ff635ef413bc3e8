-- The first schema. Times are milliseconds since 1970-01-01 UTC; ids are the 16 octets of the message id.
-- A look from outside:  sqlite3 -readonly spool.db 'SELECT lower(hex(id)), datetime(due / 1000, "unixepoch") FROM messages'

-- One row for each message that is not finished. Small on purpose: it is rewritten with every attempt.
CREATE TABLE messages (
    id           BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    received     INTEGER NOT NULL,
    reverse_path TEXT,              -- NULL: the null reverse-path, <>
    body_type    TEXT    NOT NULL,  -- '7bit', '8bitmime'
    smtputf8     INTEGER NOT NULL,
    size         INTEGER NOT NULL,  -- octets of the body
    body_file    TEXT,              -- a name under bodies/; NULL: the body is a row of bodies
    attempts     INTEGER NOT NULL DEFAULT 0,
    due          INTEGER,           -- NULL: every recipient that is left waits for a person
    owner        INTEGER            -- the node that leases it; NULL: nobody; 0: set aside
) STRICT, WITHOUT ROWID;

-- These three divide the table among them, so counting them counts it.
CREATE INDEX messages_waiting ON messages (due) WHERE owner IS NULL AND due IS NOT NULL;
CREATE INDEX messages_held ON messages (received) WHERE owner IS NULL AND due IS NULL;
CREATE INDEX messages_leased ON messages (owner) WHERE owner IS NOT NULL;

-- Written once, removed once.
CREATE TABLE bodies (
    id   BLOB NOT NULL PRIMARY KEY,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE recipients (
    message    BLOB    NOT NULL,
    position   INTEGER NOT NULL,    -- in the order of RCPT, from 0
    address    TEXT    NOT NULL,
    state      TEXT    NOT NULL,    -- 'pending', 'in_doubt', 'held', 'relayed', 'bounced', 'expired'
    provider   TEXT,                -- in_doubt: the one to ask again; held: the one it is held for
    asked      TEXT,                -- the provider that is being asked right now
    diagnostic TEXT,                -- what was said about the state
    PRIMARY KEY (message, position)
) STRICT, WITHOUT ROWID;

-- Who may hold leases. Numbers are never used again, so that an old lease cannot be taken for a new one.
CREATE TABLE nodes (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    alive_until INTEGER NOT NULL
) STRICT;

-- Quotas that survive a restart: the theoretical arrival time of the GCRA, for each bucket.
CREATE TABLE limits (
    key TEXT    NOT NULL PRIMARY KEY,
    tat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Why a message could not be read. Its rows stay where they are; once they are repaired,
-- UPDATE messages SET owner = NULL WHERE id = …  puts it back into the queue.
CREATE TABLE set_aside (
    id     BLOB    NOT NULL PRIMARY KEY,
    at     INTEGER NOT NULL,
    reason TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- Written and emptied to find out whether a message could be accepted.
CREATE TABLE probe (
    at INTEGER NOT NULL
) STRICT;

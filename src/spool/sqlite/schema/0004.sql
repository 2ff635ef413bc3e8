-- Lanes, a person's decisions, and what is on its way into the history.

-- Where mail waits: the next message is taken from each lane in turn.
CREATE TABLE lanes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    priority TEXT    NOT NULL,  -- 'high', 'normal', 'bulk'
    route    TEXT    NOT NULL,  -- of the first recipient, when the message was put there; '' for none
    domain   TEXT    NOT NULL,  -- of the reverse-path; '' for the null one
    UNIQUE (priority, route, domain)
) STRICT;

-- Of mail that was stored before there were lanes, and of mail for which there is no route.
INSERT INTO lanes (id, priority, route, domain) VALUES (0, 'normal', '', '');

ALTER TABLE messages ADD COLUMN lane INTEGER NOT NULL DEFAULT 0;
ALTER TABLE messages ADD COLUMN message_id TEXT;                  -- the Message-ID, without angle brackets
ALTER TABLE messages ADD COLUMN priority TEXT;                    -- as its application said; NULL: its route decides
ALTER TABLE messages ADD COLUMN idle INTEGER NOT NULL DEFAULT 0;  -- milliseconds that a person held it, which do not age it
ALTER TABLE messages ADD COLUMN held_at INTEGER;                  -- since when a person holds it; NULL: nobody does
ALTER TABLE messages ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;  -- 1: the sender was told that it waits
ALTER TABLE messages ADD COLUMN rerouted TEXT;                    -- the route that a person has chosen for it

ALTER TABLE recipients ADD COLUMN last_provider TEXT;             -- who was asked last
ALTER TABLE recipients ADD COLUMN not_before INTEGER;             -- not asked for again until then; NULL: whenever the message is due

-- As before, these three divide the table among them.
DROP INDEX messages_waiting;
CREATE INDEX messages_waiting ON messages (lane, due) WHERE owner IS NULL AND due IS NOT NULL;
DROP INDEX messages_held;
CREATE INDEX messages_held ON messages (lane, received) WHERE owner IS NULL AND due IS NULL;
DROP INDEX messages_leased;
CREATE INDEX messages_leased ON messages (owner, lane) WHERE owner IS NOT NULL;

-- What has to survive a restart and is no message: circuits, holds, pins, refused senders. The values are JSON.
CREATE TABLE notes (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What of a quota was used, by slots of time: as long as a slot may touch the quota's period, it counts whole.
CREATE TABLE quota_use (
    quota TEXT    NOT NULL,
    share TEXT    NOT NULL,  -- the route that reserves a share and has used this; '' for all others
    slot  INTEGER NOT NULL,
    used  INTEGER NOT NULL,
    PRIMARY KEY (quota, share, slot)
) STRICT, WITHOUT ROWID;

DROP TABLE limits;  -- how full the quotas' token buckets were, before there were slots

-- What happened and is not in the history yet, in order; JSON. Written with what it tells of.
CREATE TABLE journal (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    record TEXT    NOT NULL
) STRICT;

-- How many recipients are in each of the states that make a message stand out; kept by the trigger.
ALTER TABLE messages ADD COLUMN doubts INTEGER NOT NULL DEFAULT 0;  -- in_doubt
ALTER TABLE messages ADD COLUMN holds INTEGER NOT NULL DEFAULT 0;   -- held
ALTER TABLE messages ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;  -- dead
UPDATE messages SET
    doubts = (SELECT count(*) FROM recipients WHERE message = id AND state = 'in_doubt'),
    holds = (SELECT count(*) FROM recipients WHERE message = id AND state = 'held')
WHERE id IN (SELECT message FROM recipients WHERE state IN ('in_doubt', 'held'));
CREATE TRIGGER recipients_count AFTER UPDATE OF state ON recipients WHEN new.state <> old.state BEGIN
    UPDATE messages SET
        doubts = doubts + (new.state = 'in_doubt') - (old.state = 'in_doubt'),
        holds = holds + (new.state = 'held') - (old.state = 'held'),
        deaths = deaths + (new.state = 'dead') - (old.state = 'dead')
    WHERE id = new.message;
END;

-- Where a message stands in one word: the most urgent of what is true of it. NULL: set aside.
ALTER TABLE messages ADD COLUMN standing TEXT GENERATED ALWAYS AS (
    CASE WHEN owner = 0 THEN NULL WHEN deaths > 0 THEN 'dead' WHEN holds > 0 OR held_at IS NOT NULL THEN 'held'
        WHEN owner IS NOT NULL THEN 'active' WHEN doubts > 0 THEN 'in_doubt' WHEN attempts > 0 THEN 'deferred' ELSE 'queued' END
) VIRTUAL;

-- What people ask about most is answered from here. Mail that is passed through at once never gets into it.
-- What `standing` is made of is in it as well: without that, SQLite would look up every row for a summary.
CREATE INDEX messages_standing ON messages
    (standing, id, lane, received, due, size, attempts, owner, held_at, doubts, holds, deaths) WHERE owner IS NULL;

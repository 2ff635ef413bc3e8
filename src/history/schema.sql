-- What happened, with the indexes for finding it. Version 1. Times are milliseconds since 1970.

-- How far the journal of each spool has been taken over. It moves in the transaction that takes over.
CREATE TABLE progress (
    spool TEXT    NOT NULL PRIMARY KEY,
    last  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (
    number      INTEGER PRIMARY KEY,
    id          BLOB    NOT NULL UNIQUE,
    received    INTEGER NOT NULL,
    last        INTEGER NOT NULL,  -- when anything happened to it last
    ended       INTEGER,           -- when it left the queue
    aged        INTEGER NOT NULL,  -- from when on its age counts
    sender      TEXT    NOT NULL,  -- the domain in lower case; '' for the null one
    message_id  TEXT,
    size        INTEGER NOT NULL,
    application TEXT,
    client      TEXT
) STRICT;

CREATE INDEX messages_received ON messages (received);
CREATE INDEX messages_sender ON messages (sender, received);
CREATE INDEX messages_message_id ON messages (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX messages_aged ON messages (aged);

CREATE TABLE recipients (
    message   INTEGER NOT NULL,
    position  INTEGER NOT NULL,
    address   TEXT    NOT NULL,  -- the domain in lower case
    received  INTEGER NOT NULL,  -- of the message, so that an index gives the newest first
    state     INTEGER NOT NULL,  -- the most urgent is the least; 6: relayed
    provider  TEXT,
    route     TEXT,
    remote_id TEXT,
    words     TEXT    NOT NULL,
    PRIMARY KEY (message, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX recipients_address ON recipients (address, received);
CREATE INDEX recipients_remote_id ON recipients (remote_id, received) WHERE remote_id IS NOT NULL;
CREATE INDEX recipients_state ON recipients (state, received) WHERE state <> 6;

-- The events of each record as JSON. Without a message: what was done to the gateway itself.
CREATE TABLE events (
    number  INTEGER PRIMARY KEY,
    message INTEGER,
    at      INTEGER NOT NULL,
    events  TEXT    NOT NULL
) STRICT;

CREATE INDEX events_message ON events (message) WHERE message IS NOT NULL;
CREATE INDEX events_gateway ON events (at) WHERE message IS NULL;

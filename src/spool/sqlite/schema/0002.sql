-- What the client asked about notifications (RFC 3461), and who handed the message in. All of it may be
-- NULL: the client did not say, or the message was stored before there was room for it.

ALTER TABLE messages ADD COLUMN returned TEXT;       -- RET: 'FULL', 'HDRS'
ALTER TABLE messages ADD COLUMN envelope_id TEXT;    -- ENVID, decoded
ALTER TABLE messages ADD COLUMN application TEXT;    -- its name in the config
ALTER TABLE messages ADD COLUMN client TEXT;         -- the IP address

ALTER TABLE recipients ADD COLUMN notify TEXT;         -- NOTIFY: 'NEVER', 'SUCCESS,FAILURE,DELAY'
ALTER TABLE recipients ADD COLUMN original_type TEXT;  -- ORCPT: 'rfc822', 'utf-8', …
ALTER TABLE recipients ADD COLUMN original TEXT;       -- its address, decoded

-- Which recipients were in a handover together, so that one in doubt can be repeated as it was. NULL: nobody
-- was asked yet, or that was before there was room for it.

ALTER TABLE recipients ADD COLUMN handover INTEGER;  -- the same for those that were in the last one together

-- The operations page adds up why records were not loaded, of all batches of weeks.
SET LOCAL search_path = rowledger, pg_catalog;

-- Those that have ended more than once, whose earlier reasons count no more, are few.
CREATE INDEX import_batch_reopened ON import_batch (seqno) INCLUDE (reopened) WHERE reopened > 0;
CREATE INDEX notice_message_not_sent ON notice_message (created_at) WHERE sent_at IS NULL;

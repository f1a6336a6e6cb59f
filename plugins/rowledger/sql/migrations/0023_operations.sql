-- The operations page adds up why records were not loaded, of all batches of weeks.
SET LOCAL search_path = rowledger, pg_catalog;

-- Those that have ended more than once, whose earlier reasons count no more, are few.
CREATE INDEX import_batch_reopened ON import_batch (seqno) INCLUDE (reopened) WHERE reopened > 0;
-- Without the examples, which are ten times as long. The name of a column is as long as somebody has made it, and an index
-- takes no more than a third of a page.
CREATE INDEX import_batch_reason_counted ON import_batch_reason (outcome, seqno) INCLUDE (reopened, rule, "column", records)
    WHERE coalesce(octet_length("column"), 0) <= 1000;

CREATE INDEX notice_message_not_sent ON notice_message (created_at) WHERE sent_at IS NULL;

-- A file that is taken once more is a batch of its own: the first one stays as it ended.

SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE import_batch ADD COLUMN parent_seqno bigint REFERENCES import_batch;
COMMENT ON COLUMN import_batch.parent_seqno IS 'The batch whose file this one takes once more.';
CREATE INDEX import_batch_parent ON import_batch (parent_seqno) WHERE parent_seqno IS NOT NULL;

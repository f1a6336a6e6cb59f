-- Pause, resume, cancel; workers that are lost; trouble that time mends.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE import_batch
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN waits_because text,
    ADD CONSTRAINT import_batch_paused_is_free CHECK (status <> 'paused' OR leased_until IS NULL);
COMMENT ON COLUMN import_batch.attempts IS 'How often the batch was taken on since it last got any further.';
COMMENT ON COLUMN import_batch.waits_because IS 'The passing trouble that its last worker met; null once another takes it on.';

-- Records refused while loading get their cells at the close; a batch that failed or was cancelled never came to it.
CREATE INDEX import_record_lacks_raw ON import_record (seqno)
    WHERE raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked');

-- What a run of Airflow has taken on.
CREATE INDEX import_batch_of_run ON import_batch (run_id) WHERE status IN ('waiting', 'in_progress');

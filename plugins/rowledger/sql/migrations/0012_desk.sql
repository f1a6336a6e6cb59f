-- The desk: uploads that are safe to repeat, and lists of a hundred thousand batches.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE upload_key (
    by text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    seqno bigint NOT NULL REFERENCES import_batch,
    used_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT upload_key_once PRIMARY KEY (by, key)
);
COMMENT ON TABLE upload_key IS 'What programs call their uploads (Idempotency-Key), and the batch that each became.';

CREATE INDEX import_batch_uploaded_at ON import_batch (uploaded_at, seqno);
CREATE INDEX import_batch_processed_at ON import_batch ((coalesce(processed_at, 'infinity')), seqno);
CREATE INDEX import_batch_not_succeeded ON import_batch (status, seqno) WHERE status <> 'executed' OR NOT processed;
CREATE INDEX import_batch_run ON import_batch (run_id, kind, seqno) WHERE run_id IS NOT NULL;

-- The records that people look for: few among many, in most batches.
CREATE INDEX import_record_to_look_at ON import_record (seqno, outcome, record_no)
    WHERE outcome IN ('rejected', 'ignored', 'parked', 'historic');

CREATE TABLE import_batch_reason (
    seqno bigint NOT NULL REFERENCES import_batch,
    reopened integer NOT NULL,
    place integer NOT NULL,
    outcome text NOT NULL,
    rule text NOT NULL,
    "column" text,
    records integer NOT NULL,
    examples jsonb NOT NULL,
    CONSTRAINT import_batch_reason_once PRIMARY KEY (seqno, reopened, place)
);
COMMENT ON TABLE import_batch_reason IS
    'Why records of a batch that has ended were not loaded, counted once; place 0 says that there is no reason.';
COMMENT ON COLUMN import_batch_reason.reopened IS 'Of the batch when it was counted: one that was opened again is counted again.';
COMMENT ON COLUMN import_batch_reason.examples IS 'The first three records: number, value, message.';

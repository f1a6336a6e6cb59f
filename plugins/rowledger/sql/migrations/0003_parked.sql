SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE parked_record (
    seqno bigint NOT NULL REFERENCES import_batch,
    record_no integer NOT NULL,
    kind text NOT NULL,
    domain_id integer NOT NULL REFERENCES domain,
    match_key text COLLATE "C" NOT NULL,
    fields jsonb NOT NULL,
    warnings jsonb,
    waits_for text NOT NULL CONSTRAINT parked_record_waits_for CHECK (waits_for IN ('contract', 'status')),
    key text COLLATE "C" NOT NULL,
    parked_at timestamptz NOT NULL DEFAULT now(),
    replayed_at timestamptz,
    outcome text NOT NULL DEFAULT 'parked' CONSTRAINT parked_record_outcome CHECK (outcome IN
        ('created', 'updated', 'unchanged', 'historic', 'ignored', 'parked', 'rejected')),
    target_id bigint,
    reasons jsonb,
    CONSTRAINT parked_record_once PRIMARY KEY (seqno, record_no),
    CONSTRAINT parked_record_replayed CHECK (outcome = 'parked' OR replayed_at IS NOT NULL),
    CONSTRAINT parked_record_explained CHECK (
        replayed_at IS NULL OR outcome NOT IN ('rejected', 'ignored', 'parked') OR jsonb_array_length(reasons) > 0)
);
-- Who waits for what: no code or form id is longer than 255 characters, so a longer key waits in vain.
CREATE INDEX parked_record_waiting ON parked_record (kind, waits_for, domain_id, key)
    WHERE outcome = 'parked' AND length(key) <= 255;
-- The order in which a batch's records are replayed.
CREATE INDEX parked_record_in_order ON parked_record (seqno, match_key) WHERE outcome = 'parked';
COMMENT ON TABLE parked_record IS
    'A record whose outcome in the ledger is parked: all that is needed to replay it, and what became of it then.';
COMMENT ON COLUMN parked_record.key IS 'The form id or result code it waits for.';
COMMENT ON COLUMN parked_record.outcome IS
    'What the replay made of it; parked as long as it waits, also when it was replayed and waits for something else now.';
COMMENT ON COLUMN parked_record.reasons IS 'Of the replay; those of the import are in the ledger.';

-- What batches that have ended do not keep for ever: their file, the cells of their refused records, their staging table.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE import_batch_removed (
    seqno bigint NOT NULL REFERENCES import_batch,
    what text NOT NULL CONSTRAINT import_batch_removed_what CHECK (what IN ('file', 'cells', 'staging')),
    why text NOT NULL CONSTRAINT import_batch_removed_why CHECK (why IN ('retention', 'erasure')),
    days integer,
    decided_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    finished_at timestamptz,
    records integer NOT NULL DEFAULT 0,
    CONSTRAINT import_batch_removed_once PRIMARY KEY (seqno, what)
);
CREATE INDEX import_batch_removed_unfinished ON import_batch_removed (what, seqno) WHERE finished_at IS NULL;
COMMENT ON TABLE import_batch_removed IS 'What a batch does not keep any more. Decided first and done then, so that whatever stops in between goes on.';
COMMENT ON COLUMN import_batch_removed.days IS 'The retention of its domain, as it was then.';
COMMENT ON COLUMN import_batch_removed.records IS 'Of how many records the cells are removed.';

CREATE TABLE housekeeping_run (
    run bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    by text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at timestamptz
);
COMMENT ON TABLE housekeeping_run IS 'When housekeeping was done; one without an end was broken off, and the next has done the rest.';

CREATE TABLE housekeeping_removed (
    run bigint NOT NULL REFERENCES housekeeping_run,
    domain text,
    what text NOT NULL,
    items bigint NOT NULL,
    bytes bigint NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX housekeeping_removed_run ON housekeeping_removed (run);
COMMENT ON TABLE housekeeping_removed IS 'What a run of housekeeping has removed; null is no domain: what belongs to no batch.';

CREATE INDEX import_batch_ended ON import_batch (domain_id, processed_at) WHERE status IN ('executed', 'cancelled');
CREATE INDEX upload_key_used_at ON upload_key (used_at);

-- Reasons and warnings without what the cells said: rule and column stay.
CREATE FUNCTION without_values(reasons jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
RETURN (
    SELECT coalesce(jsonb_agg(one || '{"value": null, "message": "What the cell said is not kept any more."}' ORDER BY place), reasons)
    FROM jsonb_array_elements(CASE jsonb_typeof(reasons) WHEN 'array' THEN reasons END) WITH ORDINALITY AS r (one, place));

-- The same of the sentence why a batch failed, which may quote the commonest reasons, or the first record.
CREATE FUNCTION without_examples(message text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN split_part(split_part(message, ' The commonest reasons: ', 1), ', but reads ', 1);

CREATE FUNCTION import_batch_removed_of_ended() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM import_batch WHERE seqno = NEW.seqno AND status IN ('executed', 'cancelled')) THEN
        RAISE EXCEPTION 'import batch % has not ended', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_removed_of_ended';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_removed_of_ended BEFORE INSERT ON import_batch_removed
    FOR EACH ROW EXECUTE FUNCTION import_batch_removed_of_ended();

-- What is removed is needed to open a batch again.
CREATE FUNCTION import_batch_still_whole() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM import_batch_removed WHERE seqno = NEW.seqno) THEN
        RAISE EXCEPTION 'import batch % is not whole any more and cannot be opened again', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_still_whole';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_still_whole BEFORE UPDATE OF status ON import_batch FOR EACH ROW
    WHEN (OLD.status IN ('executed', 'cancelled') AND NEW.status NOT IN ('executed', 'cancelled'))
    EXECUTE FUNCTION import_batch_still_whole();

-- A batch that has ended stays as it is, but for what its sentences quote of cells that are removed.
CREATE FUNCTION import_batch_unquoted(was import_batch, becomes import_batch) RETURNS boolean LANGUAGE sql STABLE
RETURN to_jsonb(was) - '{error_message,warnings}'::text[] = to_jsonb(becomes) - '{error_message,warnings}'::text[]
    AND (becomes.error_message IS NOT DISTINCT FROM was.error_message
         OR becomes.error_message = without_examples(was.error_message))
    AND (becomes.warnings = was.warnings OR becomes.warnings = without_values(was.warnings));
DROP TRIGGER import_batch_close ON import_batch;
CREATE TRIGGER import_batch_close BEFORE UPDATE ON import_batch FOR EACH ROW
    WHEN (OLD.status NOT IN ('executed', 'cancelled') OR OLD.status <> NEW.status
          OR NOT import_batch_unquoted(OLD, NEW))
    EXECUTE FUNCTION import_batch_close();

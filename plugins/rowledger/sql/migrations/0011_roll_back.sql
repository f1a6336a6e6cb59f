-- A batch that has ended can be rolled back. Its ledger stays as it is for ever; a second one beside it says what the
-- roll back did about each record that had changed something.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE import_batch_roll_back (
    seqno bigint CONSTRAINT import_batch_roll_back_once PRIMARY KEY REFERENCES import_batch,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    asked_by text NOT NULL,
    why text NOT NULL CONSTRAINT import_batch_roll_back_why CHECK (is_line_of_text(why)),
    mark integer NOT NULL DEFAULT 0,
    restored integer NOT NULL DEFAULT 0,
    spared integer NOT NULL DEFAULT 0,
    finished_at timestamptz
);
CREATE INDEX import_batch_roll_back_pending ON import_batch_roll_back (seqno) WHERE finished_at IS NULL;
COMMENT ON TABLE import_batch_roll_back IS 'That a batch is to be rolled back, who asked for it and why, and how far it has come.';
COMMENT ON COLUMN import_batch_roll_back.mark IS 'Every record up to this one is restored or spared.';

CREATE TABLE roll_back_record (
    seqno bigint NOT NULL REFERENCES import_batch_roll_back,
    record_no integer NOT NULL,
    target_id bigint NOT NULL,
    about text,
    result text NOT NULL CONSTRAINT roll_back_record_result CHECK (result IN ('restored', 'spared')),
    reason text,
    later_seqno bigint,
    later_record_no integer,
    detail text,
    removed jsonb,
    recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT roll_back_record_once PRIMARY KEY (seqno, record_no),
    CONSTRAINT roll_back_record_spared_explained CHECK ((result = 'spared') = (reason IS NOT NULL)),
    CONSTRAINT roll_back_record_removed_kept CHECK ((result = 'restored') = (removed IS NOT NULL))
);
COMMENT ON TABLE roll_back_record IS 'What a roll back did about one record that had changed something: undone, or left and why.';
COMMENT ON COLUMN roll_back_record.about IS 'The key of the target, as users know it.';
COMMENT ON COLUMN roll_back_record.reason IS 'Why the target was spared: a stable word; detail is what it is about.';
COMMENT ON COLUMN roll_back_record.later_seqno IS 'The batch that has changed or confirmed the target since.';
COMMENT ON COLUMN roll_back_record.removed IS 'What the roll back took away, as it was: all of a target that the record had created.';

CREATE FUNCTION roll_back_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what a roll back did is never changed'
        USING ERRCODE = '23514', CONSTRAINT = 'roll_back_kept';
END $$;
CREATE TRIGGER roll_back_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON roll_back_record
    FOR EACH STATEMENT EXECUTE FUNCTION roll_back_kept();
CREATE TRIGGER roll_back_kept BEFORE DELETE OR TRUNCATE ON import_batch_roll_back
    FOR EACH STATEMENT EXECUTE FUNCTION roll_back_kept();
CREATE TRIGGER roll_back_finished BEFORE UPDATE ON import_batch_roll_back FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL) EXECUTE FUNCTION roll_back_kept();

-- Only what has ended is rolled back, and what is rolled back is never opened again: its load would go on where it
-- stopped, behind records that are not there any more.
CREATE FUNCTION import_batch_ended() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM import_batch WHERE seqno = NEW.seqno AND status IN ('executed', 'cancelled')) THEN
        RAISE EXCEPTION 'import batch % has not ended', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_roll_back_of_ended';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_ended BEFORE INSERT ON import_batch_roll_back
    FOR EACH ROW EXECUTE FUNCTION import_batch_ended();

CREATE FUNCTION import_batch_rolled_back() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM import_batch_roll_back WHERE seqno = NEW.seqno) THEN
        RAISE EXCEPTION 'import batch % is rolled back and cannot be opened again', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_rolled_back';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_rolled_back BEFORE UPDATE OF status ON import_batch FOR EACH ROW
    WHEN (OLD.status IN ('executed', 'cancelled') AND NEW.status NOT IN ('executed', 'cancelled'))
    EXECUTE FUNCTION import_batch_rolled_back();

-- Histories keep what was rolled back, as withdrawn ---------------------------------------------------------------

ALTER TABLE status_history
    ADD COLUMN withdrawn_at timestamptz,
    ADD CONSTRAINT status_history_withdrawn CHECK (withdrawn_at IS NULL OR cause = 'import'),
    DROP CONSTRAINT status_history_entry_unique;
-- Of the entries that count one of a kind. Not a partial index: it also finds what refers to a contract.
ALTER TABLE status_history ADD CONSTRAINT status_history_entry_unique
    UNIQUE NULLS NOT DISTINCT (contract_id, date_result, status_id, withdrawn_at);
COMMENT ON TABLE status_history IS
    'Append-only: every status a contract was given, when, why and by which record; withdrawn if its batch was rolled back.';

CREATE OR REPLACE VIEW status_chain AS
SELECT history_id, contract_id, status_id, date_result, recorded_at, cause, seqno, record_no,
       lag(status_id) OVER in_order AS previous_status_id,
       lead(history_id) OVER in_order IS NULL AS is_current
FROM status_history
WHERE withdrawn_at IS NULL
WINDOW in_order AS (
    PARTITION BY contract_id ORDER BY date_result, seqno NULLS FIRST, record_no NULLS FIRST, history_id);
COMMENT ON VIEW status_chain IS 'The history in its order, without what is withdrawn; each entry names the status before it.';

ALTER TABLE subscription_history
    ADD COLUMN withdrawn_at timestamptz,
    ADD CONSTRAINT subscription_history_withdrawn CHECK (withdrawn_at IS NULL OR seqno IS NOT NULL);
COMMENT ON TABLE subscription_history IS
    'Append-only: who opted in or out of what, when, by which batch and record; withdrawn if the batch was rolled back.';

-- What still waits when its batch is rolled back waits no longer ----------------------------------------------------

ALTER TABLE parked_record
    DROP CONSTRAINT parked_record_outcome,
    DROP CONSTRAINT parked_record_replayed;
ALTER TABLE parked_record
    ADD CONSTRAINT parked_record_outcome CHECK (outcome IN
        ('created', 'updated', 'unchanged', 'historic', 'ignored', 'parked', 'rejected', 'withdrawn')),
    ADD CONSTRAINT parked_record_replayed CHECK (outcome IN ('parked', 'withdrawn') OR replayed_at IS NOT NULL);
COMMENT ON COLUMN parked_record.outcome IS
    'What the replay made of it; parked as long as it waits, also when it was replayed and waits for something else now; '
    'withdrawn if its batch was rolled back before.';
-- Who changed or confirmed a contract, by a replay.
CREATE INDEX parked_record_target ON parked_record (target_id) WHERE target_id IS NOT NULL;

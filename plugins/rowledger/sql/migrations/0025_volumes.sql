-- The ledger in volumes, one of a domain and about a month each: retention drops a volume and deletes no rows.
--
-- Spans of seqnos, each cut by domain. That way every query about one batch finds the few tables of its span by the
-- seqno alone, and to drop an old volume locks its old span, in which nobody works any more, and not the whole ledger.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE import_record RENAME TO import_record_in_one;

-- No foreign key: it would look up the batch of every record. Who writes has the batch before him; the trigger
-- import_batch_of_domain refuses the end of a batch with a record elsewhere, so that seqno and record_no stay unique.
CREATE TABLE import_record (
    seqno bigint NOT NULL,
    record_no integer NOT NULL,
    domain_id integer NOT NULL,
    outcome text NOT NULL CONSTRAINT import_record_outcome CHECK (outcome IN
        ('created', 'updated', 'unchanged', 'historic', 'ignored', 'parked', 'rejected', 'unprocessed')),
    target_id bigint,
    reasons jsonb,
    warnings jsonb,
    raw jsonb,
    recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    before jsonb CONSTRAINT import_record_before_update CHECK (before IS NULL OR outcome = 'updated')
) PARTITION BY RANGE (seqno);
COMMENT ON TABLE import_record IS 'The ledger: what became of one record of one file. In spans of batches, and volumes by domain.';
COMMENT ON COLUMN import_record.domain_id IS 'Of the batch.';
COMMENT ON COLUMN import_record.raw IS 'The cells as they stood in the file; kept where the record was not loaded.';
COMMENT ON COLUMN import_record.before IS
    'The fields of the target that the record changed, each with the value it had before; null where there was none.';

-- Seqnos of dry runs, which are undone; they make no tables.
CREATE TABLE import_record_of_dry_runs PARTITION OF import_record FOR VALUES FROM (4611686018427387904) TO (MAXVALUE);

CREATE TABLE ledger_volume (
    first_seqno bigint NOT NULL,
    end_seqno bigint NOT NULL,
    domain_id integer NOT NULL REFERENCES domain,
    opened_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz,
    CONSTRAINT ledger_volume_once PRIMARY KEY (first_seqno, domain_id),
    CONSTRAINT ledger_volume_span CHECK (first_seqno < end_seqno)
);
CREATE INDEX ledger_volume_end ON ledger_volume (end_seqno);
COMMENT ON TABLE ledger_volume IS
    'The volumes of the ledger: the records of the batches of a domain from first_seqno to before end_seqno, in the table import_record_FIRST_DOMAIN.';
COMMENT ON COLUMN ledger_volume.removed_at IS 'When its table was dropped; its batches stay.';

-- Attached, not created in place: that way nobody waits who reads or writes the ledger.
CREATE FUNCTION make_ledger_volume(from_seqno bigint, before_seqno bigint, of_domain integer) RETURNS void
LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    span CONSTANT text := 'import_record_' || from_seqno;
    volume CONSTANT text := span || '_' || of_domain;
    alike CONSTANT text := 'CREATE TABLE %I (LIKE import_record INCLUDING DEFAULTS INCLUDING CONSTRAINTS)';
BEGIN
    IF to_regclass(span) IS NULL THEN
        EXECUTE format(alike || ' PARTITION BY LIST (domain_id)', span);
        EXECUTE format('ALTER TABLE import_record ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
                       span, from_seqno, before_seqno);
    END IF;
    EXECUTE format(alike, volume);
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%s)', span, volume, of_domain);
    INSERT INTO ledger_volume (first_seqno, end_seqno, domain_id) VALUES (from_seqno, before_seqno, of_domain);
END $$;

-- The number of batches of a span: about a month's. One day with a backlog does not count as usual; while it lasts, spans
-- grow by a quarter.
CREATE FUNCTION ledger_span_width() RETURNS bigint LANGUAGE sql STABLE SET search_path = rowledger, pg_catalog AS $$
    SELECT greatest(20, sum(batches) - max(batches), max(batches) / 4)::bigint
    FROM (SELECT count(*) AS batches FROM import_batch_brief WHERE uploaded_at > now() - interval '30 days' GROUP BY day) AS a_day
$$;

CREATE FUNCTION open_ledger_volume(of_seqno bigint, of_domain integer) RETURNS void
LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    span record;
BEGIN
    -- Statements of their own: the second look sees what was committed while the lock was waited for.
    FOR look IN 1..2 LOOP
        SELECT first_seqno, end_seqno, bool_or(domain_id = of_domain) AS has_it INTO span
        FROM ledger_volume
        WHERE end_seqno = (SELECT min(end_seqno) FROM ledger_volume WHERE end_seqno > of_seqno)
        GROUP BY first_seqno, end_seqno;
        IF span.has_it THEN
            RETURN;
        END IF;
        IF look = 1 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('rowledger ledger', 25));
        END IF;
    END LOOP;
    IF span.first_seqno IS NULL THEN
        SELECT coalesce(max(end_seqno), 1), of_seqno + ledger_span_width() INTO span.first_seqno, span.end_seqno FROM ledger_volume;
    END IF;
    PERFORM make_ledger_volume(span.first_seqno, span.end_seqno, of_domain);
END $$;

-- The batches that there are, in spans of their months.
SELECT make_ledger_volume(first_seqno, end_seqno, domain_id)
FROM (
    SELECT first_seqno, lead(first_seqno, 1, (SELECT max(seqno) FROM import_batch) + ledger_span_width())
                            OVER (ORDER BY first_seqno) AS end_seqno
    FROM (SELECT 1::bigint AS first_seqno
          UNION
          SELECT greatest(1, min(seqno) / 20 * 20) FROM import_batch GROUP BY date_trunc('month', uploaded_at)) AS begun
) AS span
CROSS JOIN LATERAL (
    SELECT DISTINCT domain_id FROM import_batch WHERE seqno >= first_seqno AND seqno < end_seqno
) AS of_span
ORDER BY first_seqno, domain_id;

DO $$
DECLARE
    moved bigint;
BEGIN
    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, reasons, warnings, raw, recorded_at, before)
    SELECT seqno, record_no, domain_id, outcome, target_id, reasons, r.warnings, raw, recorded_at, before
    FROM import_record_in_one AS r JOIN import_batch USING (seqno);
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved <> (SELECT count(*) FROM import_record_in_one) THEN
        RAISE EXCEPTION 'the ledger has records without a batch; see: rowledger check';
    END IF;
END $$;
DROP TABLE import_record_in_one;

ALTER TABLE import_record
    ADD CONSTRAINT import_record_once PRIMARY KEY (seqno, record_no, domain_id),
    -- Records of before 0008 may have passed without.
    ADD CONSTRAINT import_record_reject_explained CHECK (
        outcome NOT IN ('rejected', 'ignored', 'parked') OR coalesce(jsonb_array_length(reasons), 0) > 0) NOT VALID;
CREATE INDEX import_record_target ON import_record (target_id) WHERE target_id IS NOT NULL;
CREATE INDEX import_record_lacks_raw ON import_record (seqno)
    WHERE raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked');
CREATE INDEX import_record_to_look_at ON import_record (seqno, outcome, record_no)
    WHERE outcome IN ('rejected', 'ignored', 'parked', 'historic');

-- Whoever makes a batch, and however: there is a place for its records.
CREATE FUNCTION import_batch_has_volume() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    PERFORM open_ledger_volume(NEW.seqno, NEW.domain_id);
    RETURN NULL;
END $$;
CREATE TRIGGER import_batch_has_volume AFTER INSERT ON import_batch FOR EACH ROW
    WHEN (NEW.seqno < 4611686018427387904) EXECUTE FUNCTION import_batch_has_volume();

CREATE FUNCTION import_batch_of_domain() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM import_record WHERE seqno = NEW.seqno AND domain_id <> NEW.domain_id) THEN
        RAISE EXCEPTION 'the ledger of import batch % is not all of its domain', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_of_domain';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_of_domain BEFORE UPDATE OF status ON import_batch FOR EACH ROW
    WHEN (NEW.status IN ('executed', 'cancelled') AND OLD.status NOT IN ('executed', 'cancelled'))
    EXECUTE FUNCTION import_batch_of_domain();

ALTER TABLE import_batch_removed DROP CONSTRAINT import_batch_removed_what;
ALTER TABLE import_batch_removed
    ADD CONSTRAINT import_batch_removed_what CHECK (what IN ('file', 'cells', 'staging', 'ledger'));
COMMENT ON COLUMN import_batch_removed.records IS 'Of how many records the cells are removed, or all.';

CREATE VIEW ledger_not_kept AS SELECT seqno FROM import_batch_removed WHERE what = 'ledger';
COMMENT ON VIEW ledger_not_kept IS 'The batches whose records are not kept any more, or are about to go.';

ANALYZE import_record;

-- The desk: which template is used how often, and how often each of its rules rejects.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE INDEX import_batch_of_template ON import_batch (template_hash, seqno);
CREATE INDEX template_version_name ON template_version (name, kind);

-- Why records were not loaded is counted when a batch ends, whoever ends it: pages about many batches read the counts
-- and never the ledger.
CREATE FUNCTION import_batch_count_reasons(ended bigint, times integer) RETURNS void
LANGUAGE sql SET search_path = rowledger, pg_catalog AS $$
    INSERT INTO import_batch_reason (seqno, reopened, place, outcome, rule, "column", records, examples)
    WITH told AS (
        SELECT outcome, reason ->> 'rule' AS rule, reason ->> 'column' AS "column", record_no,
               reason ->> 'value' AS value, reason ->> 'message' AS message,
               row_number() OVER (PARTITION BY outcome, reason ->> 'rule', reason ->> 'column' ORDER BY record_no) AS nth
        FROM import_record, jsonb_array_elements(reasons) AS reason
        WHERE seqno = ended AND outcome IN ('rejected', 'ignored', 'parked')
    )
    SELECT ended, times, row_number() OVER (ORDER BY count(*) DESC, outcome, rule, "column"),
           outcome, rule, "column", count(*),
           jsonb_agg(jsonb_build_object('record_no', record_no, 'value', value, 'message', message) ORDER BY nth)
               FILTER (WHERE nth <= 3)
    FROM told
    GROUP BY outcome, rule, "column"
    ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION import_batch_reasons_counted() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    PERFORM import_batch_count_reasons(NEW.seqno, NEW.reopened);
    RETURN NULL;
END $$;
CREATE TRIGGER import_batch_reasons_counted AFTER UPDATE ON import_batch FOR EACH ROW
    WHEN (NEW.status IN ('executed', 'cancelled') AND OLD.status NOT IN ('executed', 'cancelled')
          AND NEW.rejected + NEW.ignored + NEW.parked > 0)
    EXECUTE FUNCTION import_batch_reasons_counted();

SELECT import_batch_count_reasons(seqno, reopened)
FROM import_batch
WHERE status IN ('executed', 'cancelled') AND rejected + ignored + parked > 0
ORDER BY seqno;

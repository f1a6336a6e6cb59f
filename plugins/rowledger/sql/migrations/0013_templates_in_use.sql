-- The desk: which template is used how often, and how often each of its rules rejects.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE INDEX import_batch_of_template ON import_batch (template_hash, seqno);
CREATE INDEX template_version_name ON template_version (name, kind);

-- Why records were not loaded is counted when a batch ends, whoever ends it: pages about many batches read the counts
-- and never the ledger.
CREATE FUNCTION import_batch_count_reasons(ended bigint, times integer) RETURNS void
LANGUAGE sql SET search_path = rowledger, pg_catalog SET work_mem = '64MB' SET enable_memoize = off AS $$
    INSERT INTO import_batch_reason (seqno, reopened, place, outcome, rule, "column", records, examples)
    -- A file can have millions of reasons: what is sorted is their places, not their sentences.
    WITH told AS (
        SELECT outcome COLLATE "C" AS outcome, (reason ->> 'rule') COLLATE "C" AS rule,
               (reason ->> 'column') COLLATE "C" AS "column", record_no
        FROM import_record, jsonb_array_elements(reasons) AS reason
        WHERE seqno = ended AND outcome IN ('rejected', 'ignored', 'parked')
    ), counted AS (
        SELECT outcome, rule, "column", count(*) AS records, (array_agg(record_no ORDER BY record_no))[1:3] AS firsts
        FROM told
        GROUP BY outcome, rule, "column"
    )
    SELECT ended, times, row_number() OVER (ORDER BY records DESC, outcome, rule, "column"),
           outcome, rule, "column", records,
           (SELECT jsonb_agg(jsonb_build_object('record_no', record_no, 'value', value, 'message', message))
            FROM (SELECT record_no, reason ->> 'value' AS value, reason ->> 'message' AS message
                  FROM import_record, jsonb_array_elements(reasons) WITH ORDINALITY AS one (reason, place)
                  WHERE seqno = ended AND record_no = ANY(firsts) AND reason ->> 'rule' = rule
                    AND reason ->> 'column' IS NOT DISTINCT FROM "column"
                  ORDER BY record_no, place
                  LIMIT 3) AS example)
    FROM counted
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

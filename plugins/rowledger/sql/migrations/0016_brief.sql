-- The desk: lists are filtered, searched and added up over a few bytes of each batch, not over whole batches. Reading
-- all of a hundred thousand whole batches takes several times the 100 ms that a page may take; indexes that cover every
-- filter would be as large as this table, and an index of parts of names needs an extension.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE template_version
    ADD COLUMN template_id integer GENERATED ALWAYS AS IDENTITY CONSTRAINT template_version_id_unique UNIQUE;
COMMENT ON COLUMN template_version.template_id IS 'Stands for the hash where every byte counts.';

-- Numbers stand first: what adds them up does not look behind them.
CREATE TABLE import_batch_brief (
    seqno bigint CONSTRAINT import_batch_brief_once PRIMARY KEY REFERENCES import_batch,
    uploaded_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    day date NOT NULL,
    domain_id integer NOT NULL,
    template_id integer NOT NULL,
    records integer NOT NULL,
    created integer NOT NULL,
    updated integer NOT NULL,
    unchanged integer NOT NULL,
    historic integer NOT NULL,
    ignored integer NOT NULL,
    parked integer NOT NULL,
    rejected integer NOT NULL,
    unprocessed integer NOT NULL,
    state text NOT NULL,
    uploaded_by text NOT NULL,
    origins integer[],
    words text COLLATE pg_c_utf8 NOT NULL
);
COMMENT ON TABLE import_batch_brief IS
    'What lists of batches are filtered by and add up, of every batch; the view import_batch_in_brief, kept by triggers.';
COMMENT ON COLUMN import_batch_brief.ended_at IS 'processed_at; what has not ended is the last to end.';
COMMENT ON COLUMN import_batch_brief.day IS 'Of the upload, in UTC.';
COMMENT ON COLUMN import_batch_brief.words IS 'What is searched: the names of file and uploader, folded.';

CREATE VIEW import_batch_in_brief AS
SELECT seqno, uploaded_at, coalesce(processed_at, 'infinity') AS ended_at, (uploaded_at AT TIME ZONE 'UTC')::date AS day,
       domain_id, template_id, coalesce(records_in_file, 0) AS records,
       created, updated, unchanged, historic, ignored, parked, rejected, unprocessed,
       CASE WHEN status <> 'executed' THEN status WHEN processed THEN 'succeeded' ELSE 'failed' END AS state, uploaded_by,
       (SELECT array_agg(origin_id ORDER BY origin_id) FROM import_batch_origin AS o WHERE o.seqno = import_batch.seqno) AS origins,
       lower(file_name COLLATE pg_c_utf8) || E'\n' || lower(uploaded_by COLLATE pg_c_utf8) AS words
FROM import_batch JOIN template_version USING (template_hash);
COMMENT ON VIEW import_batch_in_brief IS 'Defines import_batch_brief.';

CREATE FUNCTION import_batch_keep_brief() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    INSERT INTO import_batch_brief AS kept
    SELECT * FROM import_batch_in_brief WHERE seqno = NEW.seqno
    ON CONFLICT (seqno) DO UPDATE
    SET (uploaded_at, ended_at, day, domain_id, template_id, records, created, updated, unchanged, historic, ignored,
         parked, rejected, unprocessed, state, uploaded_by, origins, words)
        = (excluded.uploaded_at, excluded.ended_at, excluded.day, excluded.domain_id, excluded.template_id, excluded.records,
           excluded.created, excluded.updated, excluded.unchanged, excluded.historic, excluded.ignored,
           excluded.parked, excluded.rejected, excluded.unprocessed, excluded.state, excluded.uploaded_by,
           excluded.origins, excluded.words)
    WHERE kept IS DISTINCT FROM excluded;
    RETURN NULL;
END $$;
CREATE TRIGGER import_batch_keep_brief AFTER INSERT OR UPDATE ON import_batch
    FOR EACH ROW EXECUTE FUNCTION import_batch_keep_brief();
CREATE TRIGGER import_batch_keep_brief AFTER INSERT OR UPDATE ON import_batch_origin
    FOR EACH ROW EXECUTE FUNCTION import_batch_keep_brief();

INSERT INTO import_batch_brief SELECT * FROM import_batch_in_brief ORDER BY seqno;

-- In place of those of import_batch, which nothing else uses.
DROP INDEX import_batch_uploaded_at, import_batch_processed_at, import_batch_not_succeeded;
CREATE INDEX import_batch_brief_uploaded_at ON import_batch_brief (uploaded_at, seqno);
CREATE INDEX import_batch_brief_ended_at ON import_batch_brief (ended_at, seqno);
ANALYZE import_batch_brief;

-- The records of a reason that is rare in a large batch are found by their numbers. Of batches that have ended before
-- this, they are looked for as ever.
ALTER TABLE import_batch_reason ADD COLUMN record_nos integer[];
COMMENT ON COLUMN import_batch_reason.record_nos IS 'The numbers of its first ten thousand records; null where nobody kept them.';

CREATE OR REPLACE FUNCTION import_batch_count_reasons(ended bigint, times integer) RETURNS void
LANGUAGE sql SET search_path = rowledger, pg_catalog SET work_mem = '64MB' SET enable_memoize = off AS $$
    INSERT INTO import_batch_reason (seqno, reopened, place, outcome, rule, "column", records, examples, record_nos)
    -- A file can have millions of reasons: what is sorted is their places, not their sentences.
    WITH told AS (
        SELECT outcome COLLATE "C" AS outcome, (reason ->> 'rule') COLLATE "C" AS rule,
               (reason ->> 'column') COLLATE "C" AS "column", record_no
        FROM import_record, jsonb_array_elements(reasons) AS reason
        WHERE seqno = ended AND outcome IN ('rejected', 'ignored', 'parked')
    ), counted AS (
        SELECT outcome, rule, "column", count(*) AS records, (array_agg(record_no ORDER BY record_no))[1:10000] AS firsts
        FROM told
        GROUP BY outcome, rule, "column"
    )
    SELECT ended, times, row_number() OVER (ORDER BY records DESC, outcome, rule, "column"),
           outcome, rule, "column", records,
           (SELECT jsonb_agg(jsonb_build_object('record_no', record_no, 'value', value, 'message', message))
            FROM (SELECT record_no, reason ->> 'value' AS value, reason ->> 'message' AS message
                  FROM import_record, jsonb_array_elements(reasons) WITH ORDINALITY AS one (reason, place)
                  WHERE seqno = ended AND record_no = ANY(firsts[1:3]) AND reason ->> 'rule' = rule
                    AND reason ->> 'column' IS NOT DISTINCT FROM "column"
                  ORDER BY record_no, place
                  LIMIT 3) AS example),
           firsts
    FROM counted
    ON CONFLICT DO NOTHING
$$;

-- So are the records of an outcome that is rare in a large batch, such as the few that a daily file of everything updates.
CREATE TABLE import_batch_rare_outcome (
    seqno bigint NOT NULL REFERENCES import_batch,
    reopened integer NOT NULL,
    outcome text NOT NULL,
    record_nos integer[] NOT NULL,
    CONSTRAINT import_batch_rare_outcome_once PRIMARY KEY (seqno, reopened, outcome)
);
COMMENT ON TABLE import_batch_rare_outcome IS
    'Of a batch of more than ten thousand records that has ended: the numbers of those with an outcome that at most ten thousand have.';
COMMENT ON COLUMN import_batch_rare_outcome.reopened IS 'Of the batch when it ended: one that was opened again ends again.';

CREATE FUNCTION import_batch_note_rare_outcomes() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    -- The others have an index, import_record_to_look_at.
    INSERT INTO import_batch_rare_outcome
    SELECT NEW.seqno, NEW.reopened, outcome, array_agg(record_no ORDER BY record_no)
    FROM import_record
    WHERE seqno = NEW.seqno
      AND outcome = ANY(ARRAY(
          SELECT outcome
          FROM (VALUES ('created', NEW.created), ('updated', NEW.updated), ('unchanged', NEW.unchanged),
                       ('unprocessed', NEW.unprocessed)) AS told (outcome, records)
          WHERE records BETWEEN 1 AND 10000))
    GROUP BY outcome
    ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER import_batch_note_rare_outcomes AFTER UPDATE ON import_batch FOR EACH ROW
    WHEN (NEW.status IN ('executed', 'cancelled') AND OLD.status NOT IN ('executed', 'cancelled')
          AND NEW.records_in_file > 10000)
    EXECUTE FUNCTION import_batch_note_rare_outcomes();

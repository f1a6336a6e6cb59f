-- name: domains
SELECT domain_id, code FROM domain ORDER BY code

-- name: begin
INSERT INTO housekeeping_run (by) VALUES (%(by)s) RETURNING run

-- name: report
INSERT INTO housekeeping_removed (run, domain, what, items, bytes)
VALUES (%(run)s, %(domain)s, %(what)s, %(items)s, %(bytes)s)

-- name: end
UPDATE housekeeping_run SET finished_at = clock_timestamp() WHERE run = %(run)s

-- name: quiet
-- Batches of a domain that ended so many days ago and are complete: nothing is still to be read for them from their file,
-- and no roll back is under way.
SELECT seqno, file_bytes, records_in_file
FROM import_batch AS b
WHERE domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
  AND processed_at < now() - make_interval(days => %(days)s)
  AND (records_in_file IS NOT NULL OR status = 'executed'
       OR EXISTS (SELECT FROM import_batch_event AS e WHERE e.seqno = b.seqno AND event = 'not counted'))
  AND (%(what)s <> 'cells' OR rejected + ignored + parked > 0 OR error_message <> without_examples(error_message))
  AND (%(what)s <> 'staging'
       OR NOT processed AND status = 'executed' AND to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL)
  AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND gone.what = %(what)s)
  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno AND finished_at IS NULL)
  AND NOT EXISTS (SELECT FROM import_record AS r
                  WHERE r.seqno = b.seqno AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked'))

-- name: next
SELECT seqno FROM ({quiet}) AS quiet WHERE seqno > %(after)s ORDER BY seqno LIMIT %(size)s

-- name: fences
SELECT count(pg_advisory_xact_lock(hashtextextended('rowledger batch', seqno)))
FROM (SELECT seqno FROM unnest(%(seqnos)s::bigint[]) AS seqno ORDER BY seqno) AS in_order

-- name: decide
-- A file is let go at once; cells and staging need work.
WITH decided AS (
    INSERT INTO import_batch_removed (seqno, what, why, days, finished_at)
    SELECT seqno, %(what)s, 'retention', %(days)s, CASE %(what)s WHEN 'file' THEN statement_timestamp() END
    FROM ({quiet}) AS quiet
    WHERE seqno = ANY(%(seqnos)s)
    RETURNING seqno
),
told AS (
    INSERT INTO import_batch_event (seqno, event, by, detail)
    SELECT seqno, CASE %(what)s WHEN 'file' THEN 'file not kept' WHEN 'cells' THEN 'cells not kept' ELSE 'staging not kept' END,
           %(by)s, 'the domain keeps them for ' || %(days)s || ' days'
    FROM decided
)
SELECT count(*) AS items, coalesce(sum(file_bytes), 0)::bigint AS bytes FROM decided JOIN import_batch USING (seqno)

-- name: unfinished
SELECT seqno, records_in_file
FROM import_batch_removed JOIN import_batch USING (seqno)
WHERE what = %(what)s AND finished_at IS NULL AND domain_id = %(domain_id)s
ORDER BY seqno

-- name: strip_records
UPDATE import_record
SET raw = '[]', reasons = without_values(reasons), warnings = without_values(warnings)
WHERE seqno = %(seqno)s AND outcome IN ('rejected', 'ignored', 'parked')
  AND record_no > %(after)s AND record_no <= %(upto)s

-- name: strip_parked
UPDATE parked_record SET reasons = without_values(reasons), warnings = without_values(warnings)
WHERE seqno = %(seqno)s AND record_no > %(after)s AND record_no <= %(upto)s

-- name: strip_examples
UPDATE import_batch_reason SET examples = without_values(examples) WHERE seqno = %(seqno)s

-- name: strip_message
UPDATE import_batch SET error_message = without_examples(error_message)
WHERE seqno = %(seqno)s AND error_message <> without_examples(error_message)

-- name: strip_events
UPDATE import_batch_event SET detail = without_examples(detail)
WHERE seqno = %(seqno)s AND event IN ('failed', 'reopened') AND detail <> without_examples(detail)

-- name: finish
UPDATE import_batch_removed
SET finished_at = statement_timestamp(), records = CASE %(what)s WHEN 'cells' THEN (
    SELECT count(*) FROM import_record AS r
    WHERE r.seqno = import_batch_removed.seqno AND outcome IN ('rejected', 'ignored', 'parked')) ELSE 0 END
WHERE seqno = %(seqno)s AND what = %(what)s
RETURNING records

-- name: left_behind
-- Staging tables of batches that need none: they have succeeded or were cancelled.
SELECT seqno
FROM pg_catalog.pg_tables
CROSS JOIN LATERAL (SELECT substr(tablename, 7)::bigint AS seqno WHERE tablename ~ '^batch_[0-9]{1,18}$') AS named
JOIN import_batch USING (seqno)
WHERE schemaname = 'rowledger_staging' AND domain_id = %(domain_id)s AND (processed OR status = 'cancelled')
ORDER BY seqno

-- name: old_keys
DELETE FROM upload_key
WHERE (by, key) IN (
    SELECT by, key
    FROM upload_key JOIN import_batch USING (seqno)
    WHERE domain_id = %(domain_id)s AND used_at < now() - make_interval(days => %(days)s)
    LIMIT %(size)s)

-- name: files
-- Of some kept files, which a batch needs, and which no batch has ever been made of.
SELECT sha256, bool_or(b.seqno IS NOT NULL AND gone.seqno IS NULL) AS needed, bool_and(b.seqno IS NULL) AS vanished
FROM unnest(%(sha256s)s::text[]) AS sha256
LEFT JOIN import_batch AS b ON file_sha256 = sha256
LEFT JOIN import_batch_removed AS gone ON gone.seqno = b.seqno AND gone.what = 'file'
GROUP BY sha256

-- name: runs
SELECT run, by, started_at, finished_at, domain, what, items, bytes
FROM (SELECT * FROM housekeeping_run ORDER BY run DESC LIMIT %(limit)s) AS newest
LEFT JOIN housekeeping_removed USING (run)
ORDER BY run DESC, removed_at

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
-- and no roll back is under way; of their records none in the whole domain, as it wants to know what they have changed.
SELECT seqno, file_bytes, records_in_file
FROM import_batch AS b
WHERE domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
  AND processed_at < now() - make_interval(days => %(days)s)
  AND (records_in_file IS NOT NULL OR status = 'executed'
       OR EXISTS (SELECT FROM import_batch_event AS e WHERE e.seqno = b.seqno AND event = 'not counted'))
  AND (%(what)s <> 'cells' OR rejected + ignored + parked > 0 OR error_message <> without_examples(error_message))
  AND (%(what)s <> 'staging'
       OR NOT processed AND status = 'executed' AND to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL)
  AND (%(what)s <> 'ledger'
       OR NOT EXISTS (SELECT FROM parked_record AS p WHERE p.seqno = b.seqno AND outcome = 'parked')
          AND NOT EXISTS (SELECT FROM import_batch_roll_back JOIN import_batch AS x USING (seqno)
                          WHERE x.domain_id = %(domain_id)s AND finished_at IS NULL))
  AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND gone.what = %(what)s)
  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno AND finished_at IS NULL)
  AND NOT EXISTS (SELECT FROM import_record AS r
                  WHERE r.seqno = b.seqno AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked'))

-- name: next
SELECT seqno FROM ({quiet}) AS quiet WHERE seqno > %(after)s AND seqno < %(before)s ORDER BY seqno LIMIT %(size)s

-- name: fences
SELECT count(pg_advisory_xact_lock(hashtextextended('rowledger batch', seqno)))
FROM (SELECT seqno FROM unnest(%(seqnos)s::bigint[]) AS seqno ORDER BY seqno) AS in_order

-- name: decide
-- A file is let go at once; all else needs work.
WITH decided AS (
    INSERT INTO import_batch_removed (seqno, what, why, days, finished_at)
    SELECT seqno, %(what)s, 'retention', %(days)s, CASE %(what)s WHEN 'file' THEN statement_timestamp() END
    FROM ({quiet}) AS quiet
    WHERE seqno = ANY(%(seqnos)s)
    RETURNING seqno
),
told AS (
    INSERT INTO import_batch_event (seqno, event, by, detail)
    SELECT seqno, CASE %(what)s WHEN 'ledger' THEN 'records not kept' ELSE %(what)s || ' not kept' END,
           %(by)s, 'the domain keeps them for ' || %(days)s || ' days'
    FROM decided
)
SELECT count(*) AS items, coalesce(sum(file_bytes), 0)::bigint AS bytes FROM decided JOIN import_batch USING (seqno)

-- name: due_volumes
-- The volumes of a domain of whose batches each is quiet, or noted as removed already. No batch comes to them any more: a
-- later one was uploaded a day ago.
SELECT first_seqno, end_seqno
FROM ledger_volume AS v
WHERE domain_id = %(domain_id)s AND removed_at IS NULL
  AND EXISTS (SELECT FROM import_batch WHERE seqno >= v.end_seqno AND uploaded_at < now() - interval '1 day')
  AND NOT EXISTS (
      SELECT FROM import_batch AS b
      WHERE b.domain_id = v.domain_id AND b.seqno >= v.first_seqno AND b.seqno < v.end_seqno
        AND b.seqno NOT IN (SELECT seqno FROM ledger_not_kept) AND b.seqno NOT IN (SELECT seqno FROM ({quiet}) AS quiet))
ORDER BY first_seqno

-- name: waited_for
-- Volumes that stay because of parked records which still wait, of batches that ended so many days ago; the first of these.
SELECT first_seqno, end_seqno - 1 AS last_seqno, min(seqno) AS seqno
FROM ledger_volume AS v
JOIN parked_record AS p ON p.domain_id = v.domain_id AND seqno >= first_seqno AND seqno < end_seqno AND outcome = 'parked'
JOIN import_batch AS b USING (seqno)
WHERE v.domain_id = %(domain_id)s AND removed_at IS NULL AND processed_at < now() - make_interval(days => %(days)s)
GROUP BY first_seqno, end_seqno
ORDER BY first_seqno

-- name: volumes_to_drop
-- Those whose every batch is noted as removed.
SELECT first_seqno, end_seqno, name, coalesce(pg_total_relation_size(to_regclass(name)), 0) AS bytes, records
FROM ledger_volume AS v
CROSS JOIN LATERAL (SELECT format('rowledger.import_record_%%s_%%s', first_seqno, v.domain_id) AS name) AS named
CROSS JOIN LATERAL (
    SELECT coalesce(sum(records_in_file), 0)::bigint AS records, bool_and(seqno IN (SELECT seqno FROM ledger_not_kept)) AS noted
    FROM import_batch AS b
    WHERE b.domain_id = v.domain_id AND b.seqno >= v.first_seqno AND b.seqno < v.end_seqno
) AS of_batches
WHERE domain_id = %(domain_id)s AND removed_at IS NULL AND noted
ORDER BY first_seqno

-- name: rolled_back
-- The batches of a volume that were rolled back, and up to which record.
SELECT seqno, mark
FROM import_batch_roll_back JOIN import_batch USING (seqno)
WHERE domain_id = %(domain_id)s AND seqno >= %(first_seqno)s AND seqno < %(end_seqno)s
ORDER BY seqno

-- name: strip_roll_back
-- What a roll back has kept of a target, as if it had been about somebody who was erased. That it was done stays.
UPDATE roll_back_record
SET about = CASE WHEN about IS NOT NULL THEN 'erased' END,
    detail = CASE WHEN detail IS NOT NULL THEN 'erased' END,
    removed = CASE WHEN removed IS NOT NULL THEN jsonb '{}' END
WHERE seqno = %(seqno)s AND record_no > %(after)s AND record_no <= %(upto)s
  AND (about <> 'erased' OR detail <> 'erased' OR removed <> '{}')

-- name: impatience
-- Whoever reads the old span waits no longer than this. Longer than a deadlock timeout, after which an autovacuum gives way.
SET LOCAL lock_timeout = '2s'

-- name: still_to_drop
-- The volume for whoever drops it: nobody else has done so since, and no roll back of the domain is under way.
SELECT FROM ledger_volume
WHERE domain_id = %(domain_id)s AND first_seqno = %(first_seqno)s AND removed_at IS NULL
  AND NOT EXISTS (SELECT FROM import_batch_roll_back JOIN import_batch AS x USING (seqno)
                  WHERE x.domain_id = %(domain_id)s AND finished_at IS NULL)
FOR NO KEY UPDATE OF ledger_volume

-- name: drop_volume
DROP TABLE {name}

-- name: volume_dropped
UPDATE ledger_volume SET removed_at = statement_timestamp()
WHERE domain_id = %(domain_id)s AND first_seqno = %(first_seqno)s

-- name: records_removed
UPDATE import_batch_removed AS gone SET finished_at = statement_timestamp(), records = coalesce(records_in_file, 0)
FROM import_batch AS b
WHERE b.seqno = gone.seqno AND what = 'ledger' AND domain_id = %(domain_id)s
  AND b.seqno >= %(first_seqno)s AND b.seqno < %(end_seqno)s

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
-- Why somebody gave it up is the last reason, and no cell has said it.
UPDATE parked_record
SET reasons = CASE outcome WHEN 'given_up' THEN without_values(reasons - -1) || jsonb_build_array(reasons -> -1)
              ELSE without_values(reasons) END,
    warnings = without_values(warnings)
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
UPDATE import_batch_removed AS gone
SET finished_at = statement_timestamp(), records = CASE %(what)s WHEN 'cells' THEN rejected + ignored + parked ELSE 0 END
FROM import_batch AS b
WHERE b.seqno = gone.seqno AND gone.seqno = %(seqno)s AND what = %(what)s
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

-- name: list
-- One page of batches and its place: those beyond the cursor, by a key that never stands still within a row's life.
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at,
       ({key})::text AS sort_key
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE {chosen} AND {beyond}
ORDER BY {order}
LIMIT %(limit)s

-- name: chosen
-- The filter of a list. A search looks into file names and names of people; a number may be a seqno.
import_batch.kind = ANY(%(kinds)s)
  AND (%(kind)s::text IS NULL OR import_batch.kind = %(kind)s)
  AND (%(domain)s::text IS NULL OR domain.code = %(domain)s)
  AND (%(template)s::text IS NULL OR template_version.name = %(template)s)
  AND (%(status)s::text IS NULL OR import_batch.status = %(status)s)
  AND (%(processed)s::boolean IS NULL OR processed = %(processed)s)
  AND (%(uploader)s::text IS NULL OR uploaded_by = %(uploader)s)
  AND (%(day)s::date IS NULL OR (uploaded_at >= %(day)s::date AND uploaded_at < %(day)s::date + 1))
  AND (%(origin)s::text IS NULL OR EXISTS (
       SELECT FROM import_batch_origin JOIN origin USING (origin_id)
       WHERE import_batch_origin.seqno = import_batch.seqno AND origin.code = %(origin)s))
  AND (%(like)s::text IS NULL OR lower(file_name COLLATE pg_c_utf8) LIKE lower(%(like)s COLLATE pg_c_utf8)
       OR lower(uploaded_by COLLATE pg_c_utf8) LIKE lower(%(like)s COLLATE pg_c_utf8)
       OR import_batch.seqno = %(number)s)

-- name: totals
SELECT {group} AS "group", count(*) AS batches,
       count(*) FILTER (WHERE import_batch.status = 'executed' AND NOT processed) AS failed,
       count(*) FILTER (WHERE import_batch.status NOT IN ('executed', 'cancelled')) AS unfinished,
       coalesce(sum(records_in_file), 0) AS records,
       sum(created) AS created, sum(updated) AS updated, sum(unchanged) AS unchanged, sum(historic) AS historic,
       sum(ignored) AS ignored, sum(parked) AS parked, sum(rejected) AS rejected, sum(unprocessed) AS unprocessed
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
{more}
WHERE {chosen}
GROUP BY 1
ORDER BY {order}
LIMIT %(limit)s

-- name: origins_of_batches
LEFT JOIN import_batch_origin USING (seqno) LEFT JOIN origin USING (origin_id)

-- name: some
-- Certain batches, for a page that is open and wants to know what has changed.
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE seqno = ANY(%(seqnos)s) AND import_batch.kind = ANY(%(kinds)s)

-- name: newer
SELECT count(*) AS batches FROM (
    SELECT FROM import_batch WHERE seqno > %(seqno)s AND kind = ANY(%(kinds)s) LIMIT 100) AS newer

-- name: waiting_kinds
SELECT DISTINCT kind FROM import_batch WHERE status = 'waiting' AND kind = ANY(%(kinds)s)

-- name: of_run
SELECT seqno FROM import_batch WHERE run_id = %(run_id)s AND kind = %(kind)s ORDER BY seqno

-- name: about
-- What a page says of a batch beside its own columns.
SELECT reopened, now() AS now, leased_until > now() AS worked_on,
       ARRAY(SELECT code FROM import_batch_origin JOIN origin USING (origin_id) WHERE seqno = %(seqno)s ORDER BY 1) AS origins,
       ARRAY(SELECT list_id FROM import_batch_subscription JOIN subscription USING (subscription_id)
             WHERE seqno = %(seqno)s ORDER BY 1) AS subscriptions,
       ARRAY(SELECT child.seqno FROM import_batch AS child WHERE child.parent_seqno = %(seqno)s ORDER BY 1) AS children,
       (SELECT count(*) FROM mended_record WHERE child_seqno = %(seqno)s) AS mended
FROM import_batch WHERE seqno = %(seqno)s

-- name: reasons
SELECT outcome, rule, "column", records, examples
FROM import_batch_reason
WHERE seqno = %(seqno)s AND reopened = %(reopened)s
ORDER BY place

-- name: count_reasons
-- Every reason with its number of records and its first three; of a batch at work only the first records are looked at.
WITH looked_at AS (
    SELECT record_no, outcome, reasons
    FROM import_record
    WHERE seqno = %(seqno)s AND outcome IN ('rejected', 'ignored', 'parked')
    LIMIT %(limit)s
), told AS (
    SELECT outcome, reason ->> 'rule' AS rule, reason ->> 'column' AS "column", record_no,
           reason ->> 'value' AS value, reason ->> 'message' AS message,
           row_number() OVER (PARTITION BY outcome, reason ->> 'rule', reason ->> 'column' ORDER BY record_no) AS nth
    FROM looked_at, jsonb_array_elements(reasons) AS reason
)
SELECT outcome, rule, "column", count(*)::integer AS records,
       jsonb_agg(jsonb_build_object('record_no', record_no, 'value', value, 'message', message) ORDER BY nth)
           FILTER (WHERE nth <= 3) AS examples
FROM told
GROUP BY outcome, rule, "column"
ORDER BY records DESC, outcome, rule, "column"

-- name: keep_reasons
INSERT INTO import_batch_reason (seqno, reopened, place, outcome, rule, "column", records, examples)
SELECT %(seqno)s, %(reopened)s, place, outcome, rule, "column", records, examples
FROM jsonb_to_recordset(%(reasons)s)
     AS reason (place integer, outcome text, rule text, "column" text, records integer, examples jsonb)
ON CONFLICT DO NOTHING

-- name: page_of_records
SELECT r.record_no, r.outcome, r.target_id, r.reasons, r.warnings, r.raw,
       CASE WHEN r.outcome = 'parked' THEN jsonb_build_object('outcome', p.outcome, 'replayed_at', p.replayed_at) END AS parked
FROM import_record AS r LEFT JOIN parked_record AS p USING (seqno, record_no)
WHERE seqno = %(seqno)s AND record_no > %(after)s
  AND (NOT %(with_reasons)s OR r.outcome IN ('rejected', 'ignored', 'parked'))
  AND (%(outcome)s::text IS NULL OR r.outcome = %(outcome)s)
  AND (%(rule)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
  AND (%(column)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
ORDER BY record_no
LIMIT %(limit)s

-- name: lock_key
SELECT pg_try_advisory_lock(hashtextextended(%(key)s, 12)) AS locked

-- name: unlock_key
SELECT pg_advisory_unlock(hashtextextended(%(key)s, 12))


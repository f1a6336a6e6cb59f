-- name: copy_rejects
COPY import_record (seqno, record_no, domain_id, outcome, reasons, warnings, raw) FROM STDIN (FORMAT csv)

-- name: add_unprocessed
WITH missing AS (
    SELECT record_no FROM generate_series(1, %(records)s) AS record_no
    EXCEPT
    SELECT record_no FROM import_record WHERE seqno = %(seqno)s
)
INSERT INTO import_record (seqno, record_no, domain_id, outcome, recorded_at)
SELECT %(seqno)s, record_no, %(domain_id)s, 'unprocessed', coalesce(%(ended)s, now()) FROM missing

-- name: records
-- A parked record also tells what it waits for, or what became of it; it is found by that outcome too. What a roll back
-- did about a record stands beside it.
SELECT r.record_no, r.outcome, r.target_id, r.reasons, r.warnings, r.raw, r.recorded_at,
       CASE WHEN r.outcome = 'parked' THEN jsonb_build_object(
           'waits_for', p.waits_for, 'key', p.key, 'outcome', p.outcome, 'target_id', p.target_id,
           'reasons', p.reasons, 'replayed_at', p.replayed_at, 'given_up_at', p.given_up_at) END AS parked,
       CASE WHEN u.result IS NOT NULL THEN jsonb_build_object(
           'result', u.result, 'about', u.about, 'reason', u.reason, 'later_seqno', u.later_seqno,
           'later_record_no', u.later_record_no, 'detail', u.detail, 'removed', u.removed) END AS rolled_back
FROM import_record AS r
LEFT JOIN parked_record AS p USING (seqno, record_no)
LEFT JOIN roll_back_record AS u USING (seqno, record_no)
WHERE seqno = %(seqno)s
  AND (%(outcomes)s::text[] IS NULL OR r.outcome = ANY(%(outcomes)s) OR p.outcome = ANY(%(outcomes)s))
  AND (%(record_no)s::integer IS NULL OR record_no = %(record_no)s)
  AND (%(rolled_back)s::text IS NULL OR u.result = %(rolled_back)s)
  AND (%(rule)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
  AND (%(column)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
  AND record_no > %(after)s
ORDER BY record_no

-- name: common_reasons
SELECT reason ->> 'rule' AS rule, reason ->> 'column' AS "column", count(*) AS records,
       min(record_no) AS first_record, min(reason ->> 'message') AS example
FROM import_record, jsonb_array_elements(reasons) AS reason
WHERE seqno = %(seqno)s AND outcome = ANY(%(outcomes)s)
GROUP BY 1, 2
ORDER BY records DESC, rule, "column"
LIMIT %(limit)s

-- name: lacks_raw
SELECT EXISTS (
    SELECT FROM import_record
    WHERE seqno = %(seqno)s AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked')
) AS lacks

-- name: without_raw
SELECT record_no FROM import_record
WHERE seqno = %(seqno)s AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked')
  AND record_no BETWEEN %(first)s AND %(last)s
ORDER BY record_no

-- name: create_raw
CREATE TEMPORARY TABLE raw_cells (record_no integer PRIMARY KEY, raw jsonb NOT NULL) ON COMMIT DROP

-- name: copy_raw
COPY raw_cells FROM STDIN (FORMAT csv)

-- name: add_raw
UPDATE import_record SET raw = raw_cells.raw
FROM raw_cells
WHERE import_record.seqno = %(seqno)s AND import_record.record_no = raw_cells.record_no

-- name: give_up_raw
UPDATE import_record SET raw = '[]'
WHERE seqno = %(seqno)s AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked')

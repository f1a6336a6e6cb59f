-- name: page
-- Rejected records that were not sent again, also those that were parked first, and those that were given up.
WITH rejected AS (
    SELECT record_no, reasons, warnings, raw
    FROM import_record AS r
    WHERE seqno = %(seqno)s AND outcome = 'rejected' AND record_no > %(after)s
      AND (%(rule)s::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
      AND (%(column)s::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
      AND NOT EXISTS (SELECT FROM record_sent_again AS s WHERE s.seqno = r.seqno AND s.record_no = r.record_no)
    ORDER BY record_no
    LIMIT %(limit)s
), replayed AS (
    SELECT r.record_no, p.reasons, r.warnings, r.raw
    FROM import_record AS r JOIN parked_record AS p USING (seqno, record_no)
    WHERE seqno = %(seqno)s AND r.outcome = 'parked' AND p.outcome IN ('rejected', 'given_up') AND r.record_no > %(after)s
      AND (%(rule)s::text IS NULL OR p.reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
      AND (%(column)s::text IS NULL OR p.reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
      AND NOT EXISTS (SELECT FROM record_sent_again AS s WHERE s.seqno = r.seqno AND s.record_no = r.record_no)
    ORDER BY r.record_no
    LIMIT %(limit)s
)
SELECT * FROM rejected UNION ALL SELECT * FROM replayed
ORDER BY record_no
LIMIT %(limit)s

-- name: sent
SELECT child_seqno AS seqno, count(*) AS records
FROM record_sent_again
WHERE seqno = %(seqno)s
GROUP BY child_seqno
ORDER BY child_seqno

-- name: total
SELECT rejected + CASE WHEN parked = 0 THEN 0 ELSE
    (SELECT count(*) FROM parked_record AS p WHERE p.seqno = %(seqno)s AND p.outcome IN ('rejected', 'given_up')) END AS records
FROM import_batch WHERE seqno = %(seqno)s

-- name: alone
SELECT pg_advisory_xact_lock(hashtextextended('mend ' || %(seqno)s::bigint, 14))

-- name: not_to_mend
-- The first of certain records that is not rejected, or that was sent again already.
SELECT asked.record_no, s.child_seqno
FROM unnest(%(record_nos)s::integer[]) AS asked (record_no)
LEFT JOIN import_record AS r ON r.seqno = %(seqno)s AND r.record_no = asked.record_no
LEFT JOIN parked_record AS p ON p.seqno = %(seqno)s AND p.record_no = asked.record_no
LEFT JOIN record_sent_again AS s ON s.seqno = %(seqno)s AND s.record_no = asked.record_no
WHERE s.child_seqno IS NOT NULL OR (r.outcome = 'rejected' OR p.outcome IN ('rejected', 'given_up')) IS NOT TRUE
ORDER BY asked.record_no
LIMIT 1

-- name: link
INSERT INTO mended_record (child_seqno, child_record_no, seqno, record_no)
SELECT %(child_seqno)s, place, %(seqno)s, record_no
FROM unnest(%(record_nos)s::integer[]) WITH ORDINALITY AS mended (record_no, place)

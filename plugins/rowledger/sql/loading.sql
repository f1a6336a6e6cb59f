-- name: next_key
SELECT max(match_key) AS key
FROM (
    SELECT match_key FROM {staging}
    WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND (%(end)s::text IS NULL OR match_key <= %(end)s)
    ORDER BY match_key
    LIMIT %(size)s
) AS next_records
HAVING count(*) > 0

-- name: middle_key
-- The key in the middle, as long as there is a greater one.
SELECT CASE WHEN middle < greatest THEN middle ELSE least END AS key
FROM (
    SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY match_key) AS middle,
           min(match_key) AS least, max(match_key) AS greatest
    FROM {staging}
    WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s
) AS cut
WHERE least < greatest

-- name: reject_key
INSERT INTO import_record (seqno, record_no, domain_id, outcome, warnings, reasons)
SELECT %(seqno)s, record_no, %(domain_id)s, 'rejected', warnings, jsonb_build_array(jsonb_build_object(
           'rule', %(rule)s::text, 'column', %(column)s::text, 'value', NULL, 'message', %(message)s::text))
FROM {staging}
WHERE match_key = %(key)s

-- name: our_turn
SELECT seqno FROM import_turn WHERE kind = %(kind)s AND domain_id = %(domain_id)s AND seqno = %(seqno)s

-- name: lock_shared
SELECT pg_advisory_xact_lock_shared(hashtextextended(%(kind)s, %(domain_id)s))

-- name: lock
SELECT pg_advisory_xact_lock(hashtextextended(%(kind)s, %(domain_id)s))

-- name: take_turn
INSERT INTO import_turn (kind, domain_id, seqno) VALUES (%(kind)s, %(domain_id)s, %(seqno)s)
ON CONFLICT (kind, domain_id) DO UPDATE SET seqno = excluded.seqno

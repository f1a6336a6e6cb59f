-- name: cut
WITH boundary AS (
    SELECT (SELECT match_key FROM {staging} ORDER BY match_key LIMIT 1 OFFSET place) AS key
    FROM unnest(%(places)s::integer[]) AS place
    UNION
    SELECT NULL
)
INSERT INTO import_batch_lane (seqno, lane, after, upto)
SELECT %(seqno)s, row_number() OVER in_order, lag(key) OVER in_order, key
FROM boundary
WINDOW in_order AS (ORDER BY key NULLS LAST)

-- name: lanes
SELECT lane, after, upto FROM import_batch_lane WHERE seqno = %(seqno)s ORDER BY lane

-- name: mark
UPDATE import_batch_lane SET after = %(key)s WHERE seqno = %(seqno)s AND lane = %(lane)s

-- name: forget
DELETE FROM import_batch_lane WHERE seqno = %(seqno)s

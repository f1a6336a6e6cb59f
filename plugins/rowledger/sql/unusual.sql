-- name: of_feed
SELECT feed_file_id, feed, limits FROM feed_file WHERE seqno = %(seqno)s AND NOT duplicate

-- name: count_churn
SELECT count(*) AS churn
FROM {staging} AS staged
JOIN contract_status AS status ON status.domain_id = %(domain_id)s AND status.code = staged.result_code
WHERE status.churn

-- name: measure
UPDATE feed_file SET records = %(records)s, rejected = %(rejected)s, churn = %(churn)s
WHERE feed_file_id = %(feed_file_id)s

-- name: usual
-- The medians of the last batches of the feed that went through.
SELECT count(*) AS batches,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY records) AS records,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY rejected::float8 / greatest(records, 1)) AS rejected_share,
       percentile_cont(0.5) WITHIN GROUP (ORDER BY churn) AS churn
FROM (
    SELECT f.records, f.rejected, f.churn
    FROM feed_file AS f JOIN import_batch AS b USING (seqno)
    WHERE f.feed = %(feed)s AND NOT f.duplicate AND f.records IS NOT NULL AND b.processed AND f.seqno < %(seqno)s
    ORDER BY f.seqno DESC
    LIMIT %(batches)s
) AS last

-- name: hold
INSERT INTO feed_hold (seqno, feed, why) VALUES (%(seqno)s, %(feed)s, %(why)s) ON CONFLICT DO NOTHING RETURNING seqno

-- name: undecided
SELECT seqno, feed, why, held_at FROM feed_undecided ORDER BY seqno

-- name: take_up
-- Those that no task asks about, or whose task has fallen silent.
WITH free AS (
    SELECT h.seqno
    FROM feed_hold AS h JOIN feed_undecided USING (seqno)
    WHERE h.asked_until IS NULL OR h.asked_until < now()
    ORDER BY h.seqno
    LIMIT %(limit)s
    FOR UPDATE OF h SKIP LOCKED
)
UPDATE feed_hold SET asked_until = now() + make_interval(secs => %(lease_seconds)s)
FROM free
WHERE feed_hold.seqno = free.seqno
RETURNING feed_hold.seqno, feed, why, held_at

-- name: keep_asking
UPDATE feed_hold SET asked_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = ANY(%(seqnos)s) AND seqno IN (SELECT seqno FROM feed_undecided)
RETURNING seqno

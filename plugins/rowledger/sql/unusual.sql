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
-- Batches that a feed has put before a person, and nobody has resumed or cancelled since.
SELECT seqno, h.feed, h.why, h.held_at
FROM feed_hold AS h JOIN import_batch AS b USING (seqno)
WHERE b.status = 'paused' AND NOT EXISTS (
    SELECT FROM import_batch_event AS e
    WHERE e.seqno = h.seqno AND e.event IN ('resumed', 'cancelled') AND e.occurred_at > h.held_at)
ORDER BY seqno

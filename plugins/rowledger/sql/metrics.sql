-- name: unfinished
-- How many batches of a kind have not ended, by state, and for how long the one that waits longest has waited, in seconds.
SELECT status, count(*) AS batches,
       coalesce(extract(epoch FROM now() - min(uploaded_at)), 0)::double precision AS age
FROM import_batch
WHERE kind = %(kind)s AND status IN ('waiting', 'in_progress', 'paused')
GROUP BY status

-- name: lapsed
-- Batches that another run had taken on, whose worker has said nothing for a lease.
SELECT seqno FROM import_batch
WHERE kind = %(kind)s AND status = 'in_progress' AND leased_until < now() AND run_id IS DISTINCT FROM %(run_id)s

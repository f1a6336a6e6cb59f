-- name: pause
UPDATE import_batch SET status = 'paused', leased_until = NULL, waits_because = NULL WHERE seqno = %(seqno)s

-- name: resume
UPDATE import_batch SET status = 'waiting', attempts = 0 WHERE seqno = %(seqno)s

-- name: cancel
UPDATE import_batch
SET status = 'cancelled', processed_at = statement_timestamp(), leased_until = NULL, waits_because = NULL,
    unprocessed = %(unprocessed)s
WHERE seqno = %(seqno)s

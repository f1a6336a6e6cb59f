-- name: one_decides
-- Whoever asks for a roll back in a domain, and whoever decides what of its ledger is not kept, come one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('rowledger roll backs', %(domain_id)s))

-- name: ask
INSERT INTO import_batch_roll_back (seqno, asked_by, why) VALUES (%(seqno)s, %(by)s, %(why)s) ON CONFLICT DO NOTHING

-- name: roll_back
SELECT * FROM import_batch_roll_back WHERE seqno = %(seqno)s

-- name: pending
-- The newest first: what a later batch did on top of an earlier one is undone before it.
SELECT seqno
FROM import_batch_roll_back JOIN import_batch USING (seqno)
WHERE finished_at IS NULL AND kind = %(kind)s
ORDER BY seqno DESC

-- name: records
-- The records of the batch that changed something and are not undone yet. LIMIT, here and below, keeps the planner at
-- index look-ups, whatever it believes about the size of the tables.
SELECT record_no, outcome, target_id, before, recorded_at
FROM import_record AS r
WHERE seqno = %(seqno)s AND domain_id = %(domain_id)s AND outcome IN ('created', 'updated', 'historic')
  AND (SELECT true FROM roll_back_record AS done
       WHERE (done.seqno, done.record_no) = (r.seqno, r.record_no) LIMIT 1) IS NULL

-- name: replayed
-- The same of those that were parked first.
SELECT record_no, outcome, target_id, NULL::jsonb AS before, replayed_at AS recorded_at
FROM parked_record AS r
WHERE seqno = %(seqno)s AND outcome IN ('created', 'updated', 'historic')
  AND (SELECT true FROM roll_back_record AS done
       WHERE (done.seqno, done.record_no) = (r.seqno, r.record_no) LIMIT 1) IS NULL

-- name: later
-- The newest record of another batch that changed a target after record r, else the newest that confirmed it. Neither
-- counts if it was itself rolled back.
SELECT l.seqno, l.record_no, CASE l.outcome WHEN 'unchanged' THEN 'confirmed_later' ELSE 'changed_later' END AS reason
FROM (
    SELECT seqno, record_no, outcome, recorded_at FROM import_record
    WHERE target_id = r.target_id AND domain_id = %(domain_id)s AND seqno >= %(oldest)s
    UNION ALL
    SELECT seqno, record_no, outcome, replayed_at FROM parked_record WHERE target_id = r.target_id
) AS l
WHERE l.seqno <> %(seqno)s AND l.recorded_at >= r.recorded_at
  AND l.outcome IN ('created', 'updated', 'historic', 'unchanged')
  AND (SELECT kind FROM import_batch AS b WHERE b.seqno = l.seqno LIMIT 1) = {kind}
  AND CASE l.outcome
      WHEN 'unchanged' THEN (
          SELECT true FROM import_batch_roll_back AS undone
          WHERE undone.seqno = l.seqno AND finished_at IS NOT NULL LIMIT 1)
      ELSE (
          SELECT true FROM roll_back_record AS undone
          WHERE (undone.seqno, undone.record_no) = (l.seqno, l.record_no) AND result = 'restored' LIMIT 1)
      END IS NULL
ORDER BY l.outcome = 'unchanged', l.recorded_at DESC, l.record_no DESC
LIMIT 1

-- name: oldest
-- The first batch of the domain that was not at its end when this one was begun: none before it did anything later.
SELECT coalesce(min(seqno), 0) AS seqno
FROM import_batch_brief
WHERE domain_id = %(domain_id)s AND ended_at >= %(started_at)s

-- name: lost
-- Batches that ended since, whose records are not kept any more: nobody knows what they changed.
SELECT min(seqno) AS seqno
FROM import_batch JOIN import_batch_removed USING (seqno)
WHERE domain_id = %(domain_id)s AND what = 'ledger' AND processed_at >= %(started_at)s

-- name: find
-- What the records of a chunk did, and what keeps each from being undone.
CREATE TEMPORARY TABLE effect ON COMMIT DROP AS {effects}

-- name: spare_all
UPDATE effect SET reason = 'refused_by_database', detail = %(detail)s WHERE reason IS NULL

-- name: record
WITH recorded AS (
    INSERT INTO roll_back_record (seqno, record_no, target_id, about, result, reason, later_seqno, later_record_no,
                                  detail, removed)
    SELECT %(seqno)s, record_no, target_id, about, CASE WHEN reason IS NULL THEN 'restored' ELSE 'spared' END, reason,
           later_seqno, later_record_no, detail, CASE WHEN reason IS NULL THEN removed END
    FROM effect
    ORDER BY record_no
    RETURNING result
)
SELECT count(*) FILTER (WHERE result = 'restored') AS restored, count(*) FILTER (WHERE result = 'spared') AS spared
FROM recorded

-- name: withdraw_parked
UPDATE parked_record SET outcome = 'withdrawn'
WHERE seqno = %(seqno)s AND record_no > %(after)s AND record_no <= %(upto)s AND outcome = 'parked'

-- name: mark
UPDATE import_batch_roll_back
SET mark = %(upto)s, restored = restored + %(restored)s, spared = spared + %(spared)s,
    finished_at = CASE WHEN %(finished)s THEN statement_timestamp() END
WHERE seqno = %(seqno)s

-- name: planned
SELECT record_no, about, outcome, CASE WHEN reason IS NULL THEN 'restored' ELSE 'spared' END AS result, reason,
       later_seqno, later_record_no, detail, CASE WHEN reason IS NULL THEN before END AS restores,
       CASE WHEN reason IS NULL THEN removed END AS removed
FROM effect
ORDER BY record_no

-- name: waiting
SELECT count(*) AS records FROM parked_record WHERE seqno = %(seqno)s AND outcome = 'parked'

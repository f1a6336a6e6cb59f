-- name: lock
-- A lock of the session: it goes with it, however it ends.
SELECT pg_try_advisory_lock(hashtextextended('rowledger feed ' || %(feed)s, 0)) AS ours

-- name: unlock
SELECT pg_advisory_unlock(hashtextextended('rowledger feed ' || %(feed)s, 0))

-- name: remember
INSERT INTO feed (name, kind, domain) VALUES (%(feed)s, %(kind)s, %(domain)s)
ON CONFLICT (name) DO UPDATE SET kind = excluded.kind, domain = excluded.domain
WHERE (feed.kind, feed.domain) <> (excluded.kind, excluded.domain)

-- name: looked
UPDATE feed
SET looked_at = now(), trouble = %(trouble)s,
    last_file_at = (SELECT max(taken_at) FROM feed_file WHERE feed = %(feed)s)
WHERE name = %(feed)s

-- name: unknown
-- Of the files of a place, the places in the list of those that were not taken yet.
SELECT place
FROM unnest(%(names)s::text[], %(identities)s::text[]) WITH ORDINALITY AS given (name, identity, place)
WHERE NOT EXISTS (SELECT FROM feed_file AS f
                  WHERE f.feed = %(feed)s AND f.name = given.name AND f.identity = given.identity)
ORDER BY place

-- name: taken_before
-- Of the files of a place, some that were taken and moved away, and are there again as they were.
SELECT name, seqno
FROM feed_file
WHERE feed = %(feed)s AND handled_at IS NOT NULL
  AND (name, identity) IN (SELECT * FROM unnest(%(names)s::text[], %(identities)s::text[]))
ORDER BY feed_file_id DESC
LIMIT 5

-- name: forget_seen
-- What is gone, taken or has changed is seen anew.
DELETE FROM feed_seen
WHERE feed = %(feed)s
  AND (name, identity) NOT IN (SELECT * FROM unnest(%(names)s::text[], %(identities)s::text[]))

-- name: see
INSERT INTO feed_seen (feed, name, identity)
SELECT %(feed)s, name, identity FROM unnest(%(names)s::text[], %(identities)s::text[]) AS given (name, identity)
ON CONFLICT DO NOTHING

-- name: settled
SELECT name FROM feed_seen WHERE feed = %(feed)s AND seen_at <= clock_timestamp() - %(settled_after)s

-- name: take
INSERT INTO feed_file (feed, name, identity, bytes, sha256, seqno, limits, handled_at)
VALUES (%(feed)s, %(name)s, %(identity)s, %(bytes)s, %(sha256)s, %(seqno)s, %(limits)s,
        CASE WHEN %(stays)s THEN now() END)

-- name: take_duplicate
INSERT INTO feed_file (feed, name, identity, bytes, sha256, seqno, duplicate, handled_at)
VALUES (%(feed)s, %(name)s, %(identity)s, %(bytes)s, %(sha256)s, %(seqno)s, true,
        CASE WHEN %(stays)s THEN now() END)
ON CONFLICT DO NOTHING
RETURNING feed_file_id

-- name: unhandled
SELECT feed_file_id, name, identity FROM feed_file WHERE feed = %(feed)s AND handled_at IS NULL ORDER BY feed_file_id

-- name: handled
UPDATE feed_file SET handled_at = now() WHERE feed_file_id = %(feed_file_id)s

-- name: cadence
-- When files of a feed came, for what is expected of it, and the alarm that is open.
SELECT now() AS now, since, last_file_at,
       (SELECT max(cleared_at) FROM feed_alarm WHERE feed = %(feed)s) AS cleared_at,
       (SELECT due_at FROM feed_alarm WHERE feed = %(feed)s AND cleared_at IS NULL) AS missing_since
FROM feed
WHERE name = %(feed)s

-- name: came_between
SELECT EXISTS (SELECT FROM feed_file WHERE feed = %(feed)s AND taken_at > %(after)s AND taken_at <= %(upto)s) AS came

-- name: clear_alarm
-- By the first file that was taken since the alarm was due.
UPDATE feed_alarm
SET cleared_at = (SELECT min(taken_at) FROM feed_file WHERE feed = %(feed)s AND taken_at > due_at)
WHERE feed = %(feed)s AND cleared_at IS NULL
  AND EXISTS (SELECT FROM feed_file WHERE feed = %(feed)s AND taken_at > due_at)
RETURNING due_at, cleared_at

-- name: raise_alarm
INSERT INTO feed_alarm (feed, due_at) VALUES (%(feed)s, %(due_at)s) ON CONFLICT DO NOTHING RETURNING feed_alarm_id

-- name: list
SELECT name, since, looked_at, last_file_at, trouble,
       (SELECT due_at FROM feed_alarm AS a WHERE a.feed = feed.name AND cleared_at IS NULL) AS missing_since,
       (SELECT count(*) FROM feed_file AS f WHERE f.feed = feed.name AND NOT duplicate) AS files,
       (SELECT count(*) FROM feed_hold AS h JOIN import_batch USING (seqno)
        WHERE h.feed = feed.name AND status = 'paused') AS held
FROM feed

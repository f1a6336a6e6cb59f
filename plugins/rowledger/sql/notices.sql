-- name: begin
INSERT INTO notice_scope (scope) VALUES (%(scope)s) ON CONFLICT DO NOTHING

-- name: note
-- What happened in a scope since it began and was not noted yet, whether it is told or not: what is told may change.
-- What a feed has noted is its own also when it is left out, because of a typo say. A week is longer than anybody does
-- not look.
WITH scope AS (
    SELECT greatest(since, now() - interval '7 days') AS since FROM notice_scope WHERE scope = %(scope)s
),
happened AS (
    SELECT 'event ' || e.event_id AS key, CASE e.event WHEN 'paused' THEN 'held' ELSE e.event END AS event,
           e.occurred_at, e.seqno, f.feed, domain.code AS domain, NULL::bigint AS feed_alarm_id
    FROM scope
    JOIN import_batch_event AS e ON e.occurred_at >= scope.since
    JOIN import_batch AS b USING (seqno)
    JOIN domain USING (domain_id)
    LEFT JOIN feed_file AS f ON f.seqno = e.seqno AND NOT f.duplicate
    WHERE e.event IN ('executed', 'failed')
       OR e.event = 'paused' AND EXISTS (SELECT FROM feed_hold AS h
                                         WHERE h.seqno = e.seqno AND e.by = 'feed ' || h.feed)
    UNION ALL
    SELECT 'alarm ' || feed_alarm_id, 'missing', raised_at, NULL, feed, feed.domain, feed_alarm_id
    FROM scope
    JOIN feed_alarm ON raised_at >= scope.since AND (cleared_at IS NULL OR cleared_at > raised_at)
    JOIN feed ON feed.name = feed_alarm.feed
)
INSERT INTO notice (scope, key, event, occurred_at, seqno, feed, feed_alarm_id)
SELECT %(scope)s, key, event, occurred_at, seqno, feed, feed_alarm_id
FROM happened
WHERE feed = %(feed)s
   OR %(feed)s IS NULL AND domain = %(domain)s
      AND (feed IS NULL
           OR feed <> ALL(%(others)s)
              AND NOT EXISTS (SELECT FROM notice AS n WHERE n.scope = 'feed ' || happened.feed AND n.key = happened.key))
ORDER BY occurred_at
ON CONFLICT DO NOTHING
RETURNING notice_id, event

-- name: noted
SELECT n.event, n.occurred_at, n.feed, n.seqno, coalesce(domain.code, feed.domain) AS domain,
       coalesce(b.kind, feed.kind) AS kind, b.file_name, b.records_in_file AS records, b.error_rule,
       jsonb_build_object('created', b.created, 'updated', b.updated, 'unchanged', b.unchanged,
                          'historic', b.historic, 'ignored', b.ignored, 'parked', b.parked,
                          'rejected', b.rejected, 'unprocessed', b.unprocessed) AS counts,
       h.why, a.due_at
FROM notice AS n
LEFT JOIN import_batch AS b USING (seqno)
LEFT JOIN domain USING (domain_id)
LEFT JOIN feed ON feed.name = n.feed
LEFT JOIN feed_hold AS h ON h.seqno = n.seqno
LEFT JOIN feed_alarm AS a USING (feed_alarm_id)
WHERE notice_id = ANY(%(notices)s)
ORDER BY n.occurred_at, notice_id

-- name: write
INSERT INTO notice_message (scope, channel, recipient, body)
VALUES (%(scope)s, %(channel)s, %(recipient)s, %(body)s)

-- name: claim
-- The next message that is due, those first that were not tried yet; whoever claims it and is killed leaves it to the
-- next try, which comes ever later. Who has not taken one is spared the others for now.
UPDATE notice_message
SET tries = tries + 1, next_try_at = now() + make_interval(secs => least(20 * 3 ^ tries, 3600))
WHERE message_id = (
    SELECT message_id FROM notice_message AS m
    WHERE sent_at IS NULL AND given_up_at IS NULL AND next_try_at <= now()
      AND NOT EXISTS (SELECT FROM notice_message AS failed
                      WHERE failed.message_id = ANY(%(failed)s::uuid[])
                        AND (failed.channel, failed.recipient) = (m.channel, m.recipient))
    ORDER BY tries, created_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING message_id::text, scope, channel, recipient, body, tries

-- name: sent
UPDATE notice_message SET sent_at = now(), trouble = NULL WHERE message_id = %(message_id)s

-- name: not_sent
UPDATE notice_message
SET trouble = %(trouble)s, given_up_at = CASE WHEN created_at < now() - interval '1 day' THEN now() END
WHERE message_id = %(message_id)s
RETURNING given_up_at IS NOT NULL AS given_up

-- name: unsent
SELECT scope, channel, created_at, tries, trouble, given_up_at
FROM notice_message
WHERE sent_at IS NULL AND tries > 0
ORDER BY created_at DESC
LIMIT 20

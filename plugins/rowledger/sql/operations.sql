-- name: today
SELECT now() AS now, (now() AT TIME ZONE 'UTC')::date AS today

-- name: unfinished
-- What has not ended, by kind, state, and the feed whose limits put it before a person: how many, and the oldest one.
SELECT kind, CASE WHEN held.seqno IS NULL THEN status ELSE 'held' END AS state, held.feed, count(*) AS batches,
       min(brief.uploaded_at) AS oldest_at, (array_agg(seqno ORDER BY brief.uploaded_at, seqno))[1] AS oldest,
       count(waits_because) AS troubled,
       (array_agg(coalesce(held.why, waits_because) ORDER BY brief.uploaded_at, seqno)
            FILTER (WHERE coalesce(held.why, waits_because) IS NOT NULL))[1] AS why
FROM import_batch_brief AS brief
JOIN import_batch USING (seqno)
LEFT JOIN feed_undecided AS held USING (seqno)
WHERE brief.ended_at = 'infinity' AND status <> 'in_progress' AND kind = ANY(%(kinds)s)
GROUP BY 1, 2, 3
ORDER BY kind, state DESC, held.feed

-- name: running
-- What is being worked on, the longest first, and whether its worker still says something.
SELECT seqno, leased_until > now() AS worked_on, leased_until, count(*) OVER () AS running
FROM import_batch_brief AS brief JOIN import_batch USING (seqno)
WHERE brief.ended_at = 'infinity' AND status = 'in_progress' AND kind = ANY(%(kinds)s)
ORDER BY started_at, seqno
LIMIT %(limit)s

-- name: feeds
-- What is remembered of feeds, and what became of the last file of each.
SELECT feed.name, kind, domain, since, looked_at, last_file_at, trouble,
       (SELECT due_at FROM feed_alarm AS a WHERE a.feed = feed.name AND cleared_at IS NULL) AS missing_since,
       (SELECT max(cleared_at) FROM feed_alarm AS a WHERE a.feed = feed.name) AS cleared_at,
       (SELECT count(*) FROM feed_undecided AS u WHERE u.feed = feed.name) AS held,
       last.name AS file_name, last.seqno, last.duplicate, brief.state, brief.records, brief.rejected
FROM feed
LEFT JOIN LATERAL (
    SELECT f.name, f.seqno, f.duplicate FROM feed_file AS f
    WHERE f.feed = feed.name
    ORDER BY taken_at DESC, feed_file_id DESC
    LIMIT 1
) AS last ON true
LEFT JOIN import_batch_brief AS brief USING (seqno)
WHERE kind = ANY(%(kinds)s)

-- name: days
SELECT day, count(*) AS batches,
       count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE state IN ('waiting', 'in_progress', 'paused')) AS unfinished,
       sum(records)::bigint AS records, sum(created)::bigint AS created, sum(updated)::bigint AS updated,
       sum(unchanged)::bigint AS unchanged, sum(historic)::bigint AS historic, sum(ignored)::bigint AS ignored,
       sum(parked)::bigint AS parked, sum(rejected)::bigint AS rejected, sum(unprocessed)::bigint AS unprocessed
FROM import_batch_brief
WHERE uploaded_at >= %(since)s AND template_id IN (SELECT template_id FROM template_version WHERE kind = ANY(%(kinds)s))
GROUP BY day

-- name: ended
-- The newest batches since a day that have ended, and the feed that each came by.
SELECT brief.seqno, day, template_id, f.feed, brief.records, brief.{outcome} AS kept_out
FROM import_batch_brief AS brief
LEFT JOIN feed_file AS f ON f.seqno = brief.seqno AND NOT f.duplicate
WHERE uploaded_at >= %(since)s AND state IN ('succeeded', 'failed', 'cancelled')
  AND template_id IN (SELECT template_id FROM template_version WHERE kind = ANY(%(kinds)s))
  AND (%(feed)s::text IS NULL OR f.feed = %(feed)s)
ORDER BY uploaded_at DESC, brief.seqno DESC
LIMIT %(most)s

-- name: rejections
-- Records that were kept out: by feed, each once in whichever columns it was wrong; and by reason, the costliest first, with
-- the feed that most of them came by. Reasons are read from an index, which has no column with a name of more than a page.
-- Of a batch that was opened again only what its last end counted is read: few were.
SET LOCAL max_parallel_workers_per_gather = 0;
WITH ended AS MATERIALIZED ({ended}), again AS MATERIALIZED (
    SELECT seqno, reopened FROM import_batch WHERE reopened > 0
), told AS (
    SELECT template_id, rule, coalesce("column", '') AS "column", feed, day, sum(reason.records)::bigint AS records,
           count(*) AS batches, max(seqno) AS last_seqno
    FROM ended
    JOIN import_batch_reason AS reason USING (seqno)
    LEFT JOIN again USING (seqno)
    WHERE reason.outcome = %(outcome)s AND reason.reopened = coalesce(again.reopened, 0)
      AND coalesce(octet_length("column"), 0) <= 1000 AND reason.seqno >= (SELECT min(seqno) FROM ended)
    GROUP BY template_id, rule, coalesce("column", ''), feed, day
), named AS MATERIALIZED (
    SELECT name AS template, kind, told.* FROM told JOIN template_version USING (template_id)
), costliest AS MATERIALIZED (
    SELECT template, kind, rule, "column", sum(records)::bigint AS records, sum(batches)::bigint AS batches,
           max(last_seqno) AS last_seqno, row_number() OVER (ORDER BY sum(records) DESC, template, rule, "column") AS place
    FROM named
    GROUP BY template, kind, rule, "column"
    ORDER BY place
    LIMIT %(limit)s
), of_costliest AS MATERIALIZED (
    SELECT place, feed, day, sum(named.records) AS records
    FROM named JOIN costliest USING (template, kind, rule, "column")
    GROUP BY place, feed, day
), of_day AS (
    SELECT place, jsonb_object_agg(day, records) AS by_day
    FROM (SELECT place, day, sum(records) AS records FROM of_costliest GROUP BY place, day) AS by_place
    GROUP BY place
), of_feed AS (
    SELECT DISTINCT ON (place) place, feed, sum(records)::bigint AS of_feed
    FROM of_costliest
    GROUP BY place, feed
    ORDER BY place, of_feed DESC, feed
), of_template AS (
    SELECT name AS template, kind, sum(records)::bigint AS of_records
    FROM ended JOIN template_version USING (template_id)
    GROUP BY name, kind
), reason AS (
    SELECT place, template, kind, rule, nullif("column", '') AS "column", records, batches, last_seqno, of_records, by_day,
           feed, of_feed
    FROM costliest JOIN of_template USING (template, kind) JOIN of_day USING (place) JOIN of_feed USING (place)
), by_feed AS (
    SELECT feed, sum(batches)::bigint AS batches, sum(records)::bigint AS of_records, sum(kept_out)::bigint AS records,
           jsonb_object_agg(day, kept_out) AS by_day
    FROM (SELECT feed, day, count(*) AS batches, sum(records) AS records, sum(kept_out) AS kept_out
          FROM ended GROUP BY feed, day) AS of_feed_and_day
    GROUP BY feed
)
SELECT (SELECT min(day) FROM ended) AS since,
       (SELECT coalesce(jsonb_agg(by_feed ORDER BY records DESC, feed NULLS LAST), '[]') FROM by_feed) AS feeds,
       (SELECT coalesce(jsonb_agg(to_jsonb(reason) - 'place' ORDER BY place), '[]') FROM reason) AS reasons

-- name: unsent
-- Messages that could not be sent at the first try. What they were told says whom they are for, so it is not told here.
SELECT scope, channel, created_at, tries, given_up_at
FROM notice_message
WHERE sent_at IS NULL AND tries > 0 AND created_at >= %(since)s
  AND NOT EXISTS (SELECT FROM feed WHERE 'feed ' || feed.name = scope AND kind <> ALL(%(kinds)s))
ORDER BY created_at DESC
LIMIT %(limit)s

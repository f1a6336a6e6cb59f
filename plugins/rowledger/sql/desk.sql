-- name: list
-- One page of batches and its place: those beyond the cursor, by a key that never stands still within a row's life. They
-- are chosen by their briefs; only those of the page are read whole. By one process: to start others takes about as long as
-- they save, and they take the processors from whoever asks at the same time.
SET LOCAL max_parallel_workers_per_gather = 0;
WITH chosen AS (
    SELECT seqno, {key} AS place
    FROM import_batch_brief AS brief
    WHERE {chosen} AND {beyond}
    ORDER BY {order}
    LIMIT %(limit)s
)
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at,
       place::text AS sort_key
FROM chosen
JOIN import_batch USING (seqno)
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
ORDER BY {order_of_page}

-- name: chosen
-- The filter of a list. A search looks into file names and names of people; a number may be a seqno.
template_id IN (SELECT template_id FROM template_version
                WHERE kind = ANY(%(kinds)s) AND coalesce(kind = %(kind)s, true) AND coalesce(name = %(template)s, true))
  AND (%(domain)s::text IS NULL OR domain_id = (SELECT domain_id FROM domain WHERE code = %(domain)s))
  AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
  AND (%(uploader)s::text IS NULL OR uploaded_by = %(uploader)s)
  AND (%(day)s::date IS NULL OR (uploaded_at >= %(day)s::date AND uploaded_at < %(day)s::date + 1))
  AND (%(origin)s::text IS NULL OR origins && ARRAY(SELECT origin_id FROM origin WHERE code = %(origin)s))
  AND (%(like)s::text IS NULL OR words LIKE lower(%(like)s COLLATE pg_c_utf8) OR seqno = %(number)s)

-- name: totals
-- Added up once by what the groups are made of and by state, from which the groups, and all of them together, follow.
SET LOCAL max_parallel_workers_per_gather = 0;
WITH counted AS MATERIALIZED (
    SELECT {key} AS key, state, count(*) AS batches, sum(records) AS records,
           sum(created) AS created, sum(updated) AS updated, sum(unchanged) AS unchanged, sum(historic) AS historic,
           sum(ignored) AS ignored, sum(parked) AS parked, sum(rejected) AS rejected, sum(unprocessed) AS unprocessed
    FROM import_batch_brief AS brief
    WHERE {chosen}
    GROUP BY 1, 2
), told AS (
    SELECT true AS is_group, {group} AS "group", {sums} FROM counted {names}
    GROUP BY 2
    ORDER BY {order}
    LIMIT %(limit)s
)
SELECT * FROM told
UNION ALL
SELECT false, NULL, {sums} FROM counted
ORDER BY is_group DESC, {order}

-- name: sums
sum(batches)::bigint AS batches,
       coalesce(sum(batches) FILTER (WHERE state = 'failed'), 0)::bigint AS failed,
       coalesce(sum(batches) FILTER (WHERE state IN ('waiting', 'in_progress', 'paused')), 0)::bigint AS unfinished,
       sum(records)::bigint AS records,
       sum(created)::bigint AS created, sum(updated)::bigint AS updated, sum(unchanged)::bigint AS unchanged,
       sum(historic)::bigint AS historic, sum(ignored)::bigint AS ignored, sum(parked)::bigint AS parked,
       sum(rejected)::bigint AS rejected, sum(unprocessed)::bigint AS unprocessed

-- name: some
-- Certain batches, for a page that is open and wants to know what has changed.
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE seqno = ANY(%(seqnos)s) AND import_batch.kind = ANY(%(kinds)s)

-- name: newer
SELECT count(*) AS batches FROM (
    SELECT FROM import_batch WHERE seqno > %(seqno)s AND kind = ANY(%(kinds)s) LIMIT 100) AS newer

-- name: waiting_kinds
SELECT DISTINCT kind FROM import_batch WHERE status = 'waiting' AND kind = ANY(%(kinds)s)

-- name: of_run
SELECT seqno FROM import_batch WHERE run_id = %(run_id)s AND kind = %(kind)s ORDER BY seqno

-- name: about
-- What a page says of a batch beside its own columns.
SELECT reopened, seqno IN (SELECT seqno FROM ledger_not_kept) AS not_kept, now() AS now, leased_until > now() AS worked_on,
       ARRAY(SELECT code FROM import_batch_origin JOIN origin USING (origin_id) WHERE seqno = %(seqno)s ORDER BY 1) AS origins,
       ARRAY(SELECT list_id FROM import_batch_subscription JOIN subscription USING (subscription_id)
             WHERE seqno = %(seqno)s ORDER BY 1) AS subscriptions,
       ARRAY(SELECT child.seqno FROM import_batch AS child WHERE child.parent_seqno = %(seqno)s ORDER BY 1) AS children,
       (SELECT count(*) FROM mended_record WHERE child_seqno = %(seqno)s) AS mended,
       EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = %(seqno)s) AS rolling_back
FROM import_batch WHERE seqno = %(seqno)s

-- name: reasons
SELECT outcome, rule, "column", records, examples
FROM import_batch_reason
WHERE seqno = %(seqno)s AND reopened = %(reopened)s
ORDER BY place

-- name: count_reasons
-- Every reason with its number of records and its first three; of a batch at work only the first records are looked at.
WITH looked_at AS (
    SELECT record_no, outcome, reasons
    FROM import_record
    WHERE seqno = %(seqno)s AND outcome IN ('rejected', 'ignored', 'parked')
    LIMIT %(limit)s
), told AS (
    SELECT outcome, reason ->> 'rule' AS rule, reason ->> 'column' AS "column", record_no,
           reason ->> 'value' AS value, reason ->> 'message' AS message,
           row_number() OVER (PARTITION BY outcome, reason ->> 'rule', reason ->> 'column' ORDER BY record_no) AS nth
    FROM looked_at, jsonb_array_elements(reasons) AS reason
)
SELECT outcome, rule, "column", count(*)::integer AS records,
       jsonb_agg(jsonb_build_object('record_no', record_no, 'value', value, 'message', message) ORDER BY nth)
           FILTER (WHERE nth <= 3) AS examples
FROM told
GROUP BY outcome, rule, "column"
ORDER BY records DESC, outcome, rule, "column"

-- name: keep_reasons
INSERT INTO import_batch_reason (seqno, reopened, place, outcome, rule, "column", records, examples)
SELECT %(seqno)s, %(reopened)s, place, outcome, rule, "column", records, examples
FROM jsonb_to_recordset(%(reasons)s)
     AS reason (place integer, outcome text, rule text, "column" text, records integer, examples jsonb)
ON CONFLICT DO NOTHING

-- name: page_of_records
SELECT r.record_no, r.outcome, r.target_id, r.reasons, r.warnings, r.raw,
       CASE WHEN r.outcome = 'parked' THEN jsonb_build_object('outcome', p.outcome, 'replayed_at', p.replayed_at,
                                                               'reasons', p.reasons) END AS parked
FROM import_record AS r LEFT JOIN parked_record AS p USING (seqno, record_no)
WHERE seqno = %(seqno)s AND record_no > %(after)s
  AND (%(numbers)s::integer[] IS NULL OR record_no = ANY(%(numbers)s))
  AND (%(outcome)s::text IS NULL OR r.outcome = %(outcome)s)
  AND (%(rule)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
  AND (%(column)s::text IS NULL OR r.reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
ORDER BY record_no
LIMIT %(limit)s

-- name: numbers_by_outcome
SELECT record_nos AS numbers FROM import_batch_rare_outcome JOIN import_batch USING (seqno, reopened)
WHERE seqno = %(seqno)s AND outcome = %(outcome)s AND status IN ('executed', 'cancelled')

-- name: numbers_by_reason
-- Of a batch that has ended: whether its reasons are counted; of those with the rule, or with the column if that is rarer,
-- the outcomes, the first records up to a number, and that number; null if there are no others.
WITH counted AS (
    SELECT reason.* FROM import_batch_reason AS reason JOIN import_batch USING (seqno, reopened) WHERE seqno = %(seqno)s
), rarer AS (
    SELECT %(column)s::text IS NULL OR coalesce(sum(records) FILTER (WHERE rule = %(rule)s), 0)
                                    <= coalesce(sum(records) FILTER (WHERE "column" = %(column)s), 0) AS is_rule
    FROM counted
), meant AS (
    SELECT counted.* FROM counted, rarer
    WHERE coalesce(outcome = %(outcome)s, true)
      AND CASE WHEN is_rule AND %(rule)s::text IS NOT NULL THEN rule = %(rule)s ELSE "column" = %(column)s END
), known AS (
    SELECT min(coalesce(record_nos[cardinality(record_nos)], 0)) AS up_to FROM meant
    WHERE record_nos IS NULL OR cardinality(record_nos) < records
)
SELECT EXISTS (SELECT FROM counted) AS counted, ARRAY(SELECT DISTINCT outcome FROM meant) AS outcomes, up_to,
       ARRAY(SELECT DISTINCT record_no FROM meant, unnest(record_nos) AS record_no
             WHERE record_no > %(after)s AND coalesce(record_no <= up_to, true)
             ORDER BY 1 LIMIT CASE WHEN %(rule)s::text IS NULL OR %(column)s::text IS NULL THEN %(limit)s END) AS numbers
FROM known

-- name: in_order
-- Until the end of the transaction: read by index and stop at what is enough, do not read all and sort it. The planner
-- knows nothing of what became of one batch, and believes that next to no record has a certain reason.
SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off

-- name: look_for_reasons
-- The numbers of the next records with a reason. OFFSET keeps the planner from looking for the reason before the order.
SELECT record_no
FROM unnest(%(outcomes)s) AS of (outcome) CROSS JOIN LATERAL (
    SELECT record_no FROM (
        SELECT record_no, reasons FROM import_record
        WHERE seqno = %(seqno)s AND record_no > %(after)s
          AND outcome = of.outcome AND outcome IN ('rejected', 'ignored', 'parked')
        ORDER BY record_no OFFSET 0) AS in_order
    WHERE (%(rule)s::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('rule', %(rule)s::text)))
      AND (%(column)s::text IS NULL OR reasons @> jsonb_build_array(jsonb_build_object('column', %(column)s::text)))
    LIMIT %(limit)s) AS found
ORDER BY record_no
LIMIT %(limit)s

-- name: lock_key
SELECT pg_try_advisory_lock(hashtextextended(%(key)s, 12)) AS locked

-- name: unlock_key
SELECT pg_advisory_unlock(hashtextextended(%(key)s, 12))


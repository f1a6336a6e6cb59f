-- name: used
-- Every template that a batch of these kinds was uploaded with: how many versions and batches, and the last upload.
SELECT name, template_version.kind, count(*) AS versions, sum(batches)::integer AS batches, max(uploaded_at) AS last_used_at
FROM template_version
CROSS JOIN LATERAL (
    SELECT count(*) AS batches, max(seqno) AS last FROM import_batch
    WHERE import_batch.template_hash = template_version.template_hash
) AS using_it
LEFT JOIN import_batch ON seqno = last
WHERE template_version.kind = ANY(%(kinds)s)
GROUP BY name, template_version.kind
ORDER BY name, template_version.kind

-- name: versions
-- The versions of a template that batches were uploaded with, the newest first.
SELECT template_version.template_hash, source, suite_hash, first_used_at, batches, last AS last_seqno,
       uploaded_at AS last_used_at
FROM template_version
CROSS JOIN LATERAL (
    SELECT count(*) AS batches, max(seqno) AS last FROM import_batch
    WHERE import_batch.template_hash = template_version.template_hash
) AS using_it
LEFT JOIN import_batch ON seqno = last
WHERE name = %(name)s AND template_version.kind = %(kind)s
ORDER BY first_used_at DESC

-- name: batches
-- The newest batches of a template; of each version by index, so that a rare one is found as quickly as a common one.
SELECT seqno FROM template_version
CROSS JOIN LATERAL (
    SELECT seqno FROM import_batch
    WHERE import_batch.template_hash = template_version.template_hash
    ORDER BY seqno DESC LIMIT %(limit)s
) AS newest
WHERE name = %(name)s AND kind = %(kind)s
ORDER BY seqno DESC
LIMIT %(limit)s

-- name: rejections
-- Of the newest batches that have ended: records in all, and how many each rule kept out, by column and outcome.
WITH ended AS (
    SELECT newest.* FROM template_version
    CROSS JOIN LATERAL (
        SELECT seqno, reopened, records_in_file FROM import_batch
        WHERE import_batch.template_hash = template_version.template_hash
          AND status IN ('executed', 'cancelled') AND records_in_file > 0
        ORDER BY seqno DESC LIMIT %(limit)s
    ) AS newest
    WHERE name = %(name)s AND kind = %(kind)s
    ORDER BY seqno DESC
    LIMIT %(limit)s
)
SELECT outcome, rule, "column", sum(records)::bigint AS records, count(DISTINCT seqno) AS batches, max(seqno) AS last_seqno,
       (SELECT sum(records_in_file) FROM ended)::bigint AS of_records, (SELECT count(*) FROM ended) AS of_batches
FROM ended
-- OFFSET keeps the planner at one index look-up per batch, whatever it believes of the size of the table.
LEFT JOIN LATERAL (
    SELECT outcome, rule, "column", records FROM import_batch_reason AS kept
    WHERE kept.seqno = ended.seqno AND kept.reopened = ended.reopened OFFSET 0
) AS reason ON true
GROUP BY outcome, rule, "column"
ORDER BY records DESC NULLS LAST, outcome, rule, "column"

-- name: kind_of_old
SELECT kind FROM template_version WHERE name = %(name)s ORDER BY first_used_at DESC LIMIT 1

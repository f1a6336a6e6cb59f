-- name: due
-- Records of closed batches that wait for what exists by now, and that nobody is about to roll back.
SELECT parked.*
FROM parked_record AS parked
JOIN import_batch AS b ON b.seqno = parked.seqno AND b.status IN ('executed', 'cancelled')
    AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno)
WHERE parked.kind = %(kind)s AND waits_for = 'contract' AND outcome = 'parked' AND length(key) <= 255
  AND (%(seqno)s::bigint IS NULL OR parked.seqno = %(seqno)s)
  AND EXISTS (SELECT FROM contract WHERE contract.domain_id = parked.domain_id AND form_id = key)
UNION ALL
SELECT parked.*
FROM parked_record AS parked
JOIN import_batch AS b ON b.seqno = parked.seqno AND b.status IN ('executed', 'cancelled')
    AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno)
WHERE parked.kind = %(kind)s AND waits_for = 'status' AND outcome = 'parked' AND length(key) <= 255
  AND (%(seqno)s::bigint IS NULL OR parked.seqno = %(seqno)s)
  AND EXISTS (SELECT FROM contract_status AS s WHERE s.domain_id = parked.domain_id AND s.code = key AND NOT s.retired)

-- name: is_due
SELECT EXISTS ({due}) AS due

-- name: batches_due
SELECT DISTINCT seqno FROM ({due}) AS due ORDER BY seqno

-- name: refuse
UPDATE parked_record
SET outcome = 'rejected', replayed_at = statement_timestamp(), reasons = jsonb_build_array(jsonb_build_object(
        'rule', %(rule)s::text, 'column', %(column)s::text, 'value', NULL, 'message', %(message)s::text))
FROM ({due}) AS due
WHERE parked_record.seqno = due.seqno AND parked_record.record_no = due.record_no AND due.match_key = %(key)s

-- name: exists_now
CASE waiting.waits_for
    WHEN 'contract' THEN EXISTS (
        SELECT FROM contract AS c WHERE c.domain_id = waiting.domain_id AND c.form_id = waiting.key)
    WHEN 'status' THEN EXISTS (
        SELECT FROM contract_status AS s WHERE s.domain_id = waiting.domain_id AND s.code = waiting.key AND NOT s.retired)
END

-- name: groups
WITH waiting AS (
    SELECT domain_id, kind, waits_for, key, count(*) AS records,
           array_agg(DISTINCT seqno ORDER BY seqno) AS batches, min(parked_at) AS since, min(seqno) AS first_seqno,
           (array_agg(record_no ORDER BY seqno, record_no))[1] AS first_record,
           count(*) OVER () AS all_groups, sum(count(*)) OVER () AS all_records
    FROM parked_record
    WHERE outcome = 'parked' AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s))
      AND (%(domain_id)s::integer IS NULL OR domain_id = %(domain_id)s)
      AND (%(seqno)s::bigint IS NULL OR seqno = %(seqno)s)
    GROUP BY domain_id, kind, waits_for, key
    ORDER BY records DESC, domain_id, kind, waits_for, key
    LIMIT %(limit)s
)
SELECT domain.code AS domain, kind, waits_for, key, records, batches, since, first_seqno, first_record, all_groups, all_records,
       {exists_now} AS exists_now
FROM waiting JOIN domain USING (domain_id)
ORDER BY records DESC, domain.code, kind, waits_for, key

-- name: became
SELECT outcome, count(*) AS records FROM parked_record WHERE seqno = %(seqno)s GROUP BY outcome ORDER BY outcome

-- name: give_up
-- The next records of a batch that wait, for anything or for one thing, which does not exist: what does is replayed. Their
-- reasons say what they lacked at the last try, and why nobody waits for it any more.
WITH chosen AS (
    SELECT record_no
    FROM parked_record AS waiting
    WHERE seqno = %(seqno)s AND outcome = 'parked' AND record_no > %(after)s
      AND (%(waits_for)s::text IS NULL OR waits_for = %(waits_for)s AND key = %(key)s)
      AND NOT {exists_now}
      AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = %(seqno)s)
    ORDER BY record_no
    LIMIT %(size)s
), given_up AS (
    UPDATE parked_record
    SET outcome = 'given_up', given_up_at = statement_timestamp(),
        reasons = coalesce(parked_record.reasons, r.reasons, '[]') || jsonb_build_array(jsonb_build_object(
            'rule', 'given_up', 'column', NULL, 'value', NULL, 'message', %(message)s::text))
    FROM chosen
    LEFT JOIN import_record AS r
        ON r.seqno = %(seqno)s AND r.domain_id = %(domain_id)s AND r.record_no = chosen.record_no
    WHERE parked_record.seqno = %(seqno)s AND parked_record.record_no = chosen.record_no
    RETURNING parked_record.record_no
)
SELECT count(*) AS records, max(record_no) AS last FROM given_up

-- name: batches_waiting
-- The batches that have ended of which records wait for one contract or code; the oldest first.
SELECT DISTINCT seqno
FROM parked_record AS waiting JOIN import_batch AS b USING (seqno, kind, domain_id)
WHERE outcome = 'parked' AND kind = %(kind)s AND domain_id = %(domain_id)s AND waits_for = %(waits_for)s AND key = %(key)s
  AND status IN ('executed', 'cancelled') AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno)
ORDER BY seqno

-- name: batches_overdue
-- The batches of a domain that ended so many days ago, of which records still wait; the oldest first.
SELECT DISTINCT seqno
FROM parked_record AS waiting JOIN import_batch AS b USING (seqno, domain_id)
WHERE outcome = 'parked' AND domain_id = %(domain_id)s
  AND status IN ('executed', 'cancelled') AND processed_at < now() - make_interval(days => %(days)s)
  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno)
ORDER BY seqno

-- name: is_rolled_back
SELECT EXISTS (SELECT FROM import_batch_roll_back WHERE seqno = %(seqno)s) AS asked

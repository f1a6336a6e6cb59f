-- name: due
-- From which day on a domain's histories are kept so many days, in whole years, and whether there is anything before to let
-- go. A roll back wants to know what was before.
SELECT history, date_trunc('year', current_date - %(days)s)::date AS first_day
FROM history_volume
WHERE domain_id = %(domain_id)s AND removed_at IS NULL AND isfinite(first_day)
  AND end_day <= date_trunc('year', current_date - %(days)s)
  AND NOT EXISTS (SELECT FROM import_batch_roll_back JOIN import_batch AS b USING (seqno)
                  WHERE b.domain_id = history_volume.domain_id AND finished_at IS NULL)
GROUP BY history
ORDER BY history

-- name: volumes
-- What is let go: the years before the day, and what had been kept of those before them.
SELECT name, coalesce(pg_total_relation_size(to_regclass(name)), 0) AS bytes, isfinite(first_day) AS a_year
FROM history_volume
CROSS JOIN LATERAL (SELECT 'rowledger.' || history_volume_table(history, domain_id, first_day, end_day) AS name) AS named
WHERE history = %(history)s AND domain_id = %(domain_id)s AND removed_at IS NULL AND end_day <= %(first_day)s
ORDER BY first_day

-- name: entries
SELECT count(*) AS entries FROM {history} WHERE domain_id = %(domain_id)s AND {day} < %(bound)s

-- name: make
SELECT make_history_volume(%(history)s, %(domain_id)s, '-infinity', %(first_day)s),
       'rowledger.' || history_volume_table(%(history)s, %(domain_id)s, '-infinity', %(first_day)s) AS name

-- name: kept_status_history
-- Of each contract the last entry that counts, with all statuses that it had had by then.
WITH before AS (
    SELECT * FROM status_history WHERE domain_id = %(domain_id)s AND date_result < %(bound)s AND withdrawn_at IS NULL
),
last AS (
    SELECT DISTINCT ON (contract_id) *
    FROM before
    ORDER BY contract_id, date_result DESC, seqno DESC NULLS LAST, record_no DESC NULLS LAST, history_id DESC
),
had AS (
    SELECT contract_id, array_agg(DISTINCT status_id ORDER BY status_id) AS status_ids
    FROM (SELECT contract_id, status_id, history_id FROM before
          UNION ALL
          SELECT contract_id, unnest(had), NULL FROM before WHERE had IS NOT NULL) AS had
    GROUP BY contract_id
    HAVING count(DISTINCT history_id) > 1 OR count(*) > count(history_id)
)
SELECT history_id, contract_id, domain_id, status_id, date_result, recorded_at, cause, seqno, record_no, withdrawn_at,
       status_ids AS had
FROM last LEFT JOIN had USING (contract_id)

-- name: kept_subscription_history
-- Of each contact the last entry of each list that counts.
SELECT DISTINCT ON (contact_id, subscription_id) *
FROM subscription_history
WHERE domain_id = %(domain_id)s AND recorded_at < %(bound)s AND withdrawn_at IS NULL
ORDER BY contact_id, subscription_id, history_id DESC

-- name: keep
WITH kept AS ({kept})
INSERT INTO {volume} TABLE kept

-- name: count
SELECT count(*) AS kept FROM ({kept}) AS kept

-- name: bounded
-- What the partition will have to be: to attach it is then a matter of moments.
ALTER TABLE {volume} ADD CONSTRAINT bounded CHECK (domain_id = %(domain_id)s AND {day} < %(bound)s);
ANALYZE {volume}

-- name: attach
SELECT attach_history_volume(%(history)s, %(domain_id)s, '-infinity', %(first_day)s)

-- name: unbounded
ALTER TABLE {volume} DROP CONSTRAINT bounded

-- name: size
SELECT pg_total_relation_size(%(name)s::regclass) AS bytes

-- name: dropped
UPDATE history_volume SET removed_at = clock_timestamp()
WHERE history = %(history)s AND domain_id = %(domain_id)s AND removed_at IS NULL AND end_day <= %(first_day)s
  AND (first_day, end_day) <> ('-infinity', %(first_day)s)

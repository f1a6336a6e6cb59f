-- name: keep_template
INSERT INTO template_version (template_hash, name, kind, source, suite_hash)
VALUES (%(template_hash)s, %(name)s, %(kind)s, %(source)s, %(suite_hash)s)
ON CONFLICT (template_hash) DO NOTHING

-- name: alone_with_file
-- Whoever makes a batch of a kept file, and whoever lets the file go, come one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('rowledger file ' || %(sha256)s, 0))

-- name: needed
SELECT EXISTS (
    SELECT FROM import_batch AS b
    WHERE file_sha256 = %(sha256)s
      AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND gone.what = 'file')) AS needed

-- name: same_file
SELECT seqno, file_name
FROM import_batch
WHERE file_sha256 = %(sha256)s AND template_hash = %(template_hash)s AND domain_id = %(domain_id)s
  AND status <> 'cancelled' AND (processed OR status <> 'executed')
  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno AND finished_at IS NOT NULL)
ORDER BY seqno
LIMIT 1

-- name: register
INSERT INTO import_batch (seqno, parent_seqno, kind, domain_id, template_hash, file_name, file_path, file_bytes,
                          file_sha256, uploaded_by, uploaded_through)
OVERRIDING SYSTEM VALUE
VALUES (coalesce(%(seqno)s, nextval(pg_get_serial_sequence('import_batch', 'seqno'))), %(parent_seqno)s, %(kind)s,
        %(domain_id)s, %(template_hash)s, %(file_name)s, %(file_path)s, %(file_bytes)s,
        %(sha256)s, %(by)s, %(through)s)
RETURNING seqno

-- name: add_origins
WITH chosen AS (
    SELECT origin_id FROM origin WHERE domain_id = %(domain_id)s AND active AND code = ANY(%(codes)s)
)
INSERT INTO import_batch_origin (seqno, origin_id) SELECT %(seqno)s, origin_id FROM chosen

-- name: unusable_origins
SELECT asked.code, origin.origin_id IS NOT NULL AS known
FROM unnest(%(codes)s::text[]) AS asked (code)
LEFT JOIN origin ON origin.domain_id = %(domain_id)s AND origin.code = asked.code
WHERE origin.active IS NOT TRUE
ORDER BY asked.code

-- name: add_subscriptions
INSERT INTO import_batch_subscription (seqno, subscription_id)
SELECT %(seqno)s, subscription_id
FROM subscription
WHERE domain_id = %(domain_id)s AND NOT disabled AND list_id = ANY(%(codes)s)

-- name: unusable_subscriptions
SELECT asked.code, subscription.subscription_id IS NOT NULL AS known
FROM unnest(%(codes)s::text[]) AS asked (code)
LEFT JOIN subscription ON subscription.domain_id = %(domain_id)s AND subscription.list_id = asked.code
WHERE subscription.disabled IS NOT FALSE
ORDER BY asked.code

-- name: sent_before
SELECT seqno, fingerprint FROM upload_key WHERE by = %(by)s AND key = %(key)s

-- name: remember
INSERT INTO upload_key (by, key, fingerprint, seqno) VALUES (%(by)s, %(key)s, %(fingerprint)s, %(seqno)s)

-- name: codes
-- The origins and lists named at the upload of a batch.
SELECT ARRAY(SELECT code FROM import_batch_origin JOIN origin USING (origin_id) WHERE seqno = %(seqno)s) AS origins,
       ARRAY(SELECT list_id FROM import_batch_subscription JOIN subscription USING (subscription_id)
             WHERE seqno = %(seqno)s) AS subscriptions

-- name: children
SELECT seqno FROM import_batch WHERE parent_seqno = %(seqno)s ORDER BY seqno

-- name: event
INSERT INTO import_batch_event (seqno, event, by, detail) VALUES (%(seqno)s, %(event)s, %(by)s, %(detail)s)

-- name: events
SELECT occurred_at, event, by, detail FROM import_batch_event WHERE seqno = %(seqno)s ORDER BY event_id

-- name: batch
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE seqno = %(seqno)s

-- name: list
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE (%(kind)s::text IS NULL OR import_batch.kind = %(kind)s)
  AND (%(status)s::text IS NULL OR status = %(status)s)
  AND (%(before)s::bigint IS NULL OR seqno < %(before)s)
ORDER BY seqno DESC
LIMIT %(limit)s

-- name: template_source
SELECT name, source FROM template_version WHERE template_hash = %(template_hash)s

-- name: waiting
SELECT seqno FROM import_batch WHERE status = 'waiting' ORDER BY seqno

-- name: reserve
-- Batches that wait, batches whose worker has fallen silent, and those this run has taken before (a retried sensor).
-- A run never has more than the limit, also with those that it is done with.
-- What waits its turn in another run stays that run's as long as it works at any batch.
WITH free AS (
    SELECT seqno
    FROM import_batch AS b
    WHERE kind = %(kind)s AND status IN ('waiting', 'in_progress')
      AND (leased_until IS NULL OR run_id = %(run_id)s
           OR leased_until < now() AND (status = 'in_progress' OR NOT EXISTS (
               SELECT FROM import_batch AS other
               WHERE other.run_id = b.run_id AND other.status IN ('waiting', 'in_progress')
                 AND other.leased_until >= now())))
    ORDER BY seqno
    LIMIT greatest(0, %(limit)s - (SELECT count(*) FROM import_batch AS done
                                   WHERE done.kind = %(kind)s AND done.run_id = %(run_id)s
                                     AND done.status NOT IN ('waiting', 'in_progress')))
    FOR UPDATE SKIP LOCKED
)
UPDATE import_batch
SET run_id = %(run_id)s, leased_until = now() + make_interval(secs => %(lease_seconds)s)
FROM free
WHERE import_batch.seqno = free.seqno
RETURNING import_batch.seqno

-- name: look_again
-- A transaction sees the sessions as they were when it first looked.
SELECT pg_stat_clear_snapshot()

-- name: end_silent
-- Sessions that hold the fence of a batch while the server waits for a client that has said nothing for a lease: its
-- process is stopped, or its machine is gone and the network has not told. One that is at work waits for no client.
SELECT seqno, pg_terminate_backend(pid, 5000)
FROM import_batch
JOIN pg_locks AS held
    ON (held.classid::bigint << 32 | held.objid::bigint) = hashtextextended('rowledger batch', seqno)
JOIN pg_stat_activity AS session USING (pid)
WHERE (seqno = %(seqno)s OR %(seqno)s::bigint IS NULL AND status IN ('waiting', 'in_progress'))
  AND held.locktype = 'advisory' AND held.objsubid = 1 AND held.granted AND held.database = session.datid
  AND session.datname = current_database() AND session.usename = current_user AND session.wait_event_type = 'Client'
  AND session.state_change < clock_timestamp() - make_interval(secs => %(lease_seconds)s)

-- name: of_run
SELECT seqno FROM import_batch WHERE kind = %(kind)s AND run_id = %(run_id)s ORDER BY seqno

-- name: fence
SELECT pg_advisory_xact_lock(hashtextextended('rowledger batch', %(seqno)s))

-- name: fence_shared
SELECT pg_advisory_xact_lock_shared(hashtextextended('rowledger batch', %(seqno)s))

-- name: lock
-- Not FOR UPDATE: a replay that has its turn refers to the batch, and whoever has the batch may want that turn next.
SELECT import_batch.*, domain.code AS domain, template_version.name AS template, template_version.suite_hash,
       (SELECT finished_at FROM import_batch_roll_back AS r WHERE r.seqno = import_batch.seqno) AS rolled_back_at
FROM import_batch
JOIN domain USING (domain_id)
JOIN template_version USING (template_hash)
WHERE seqno = %(seqno)s
FOR NO KEY UPDATE OF import_batch

-- name: claim
UPDATE import_batch
SET status = 'in_progress', epoch = epoch + 1, attempts = attempts + 1, waits_because = NULL,
    started_at = coalesce(started_at, now()),
    run_id = coalesce(%(run_id)s, run_id),
    leased_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = %(seqno)s

-- name: begun
-- What a run may still decide to work in parts: a batch of which nothing is done.
SELECT seqno, file_bytes, parts, validated_at IS NOT NULL OR validated_records > 0 AS begun
FROM import_batch
WHERE seqno = ANY(%(seqnos)s)
ORDER BY seqno

-- name: cut
WITH cut AS (
    INSERT INTO import_batch_part (seqno, part) SELECT %(seqno)s, generate_series(1, %(parts)s)
)
UPDATE import_batch SET parts = %(parts)s, epoch = epoch + 1 WHERE seqno = %(seqno)s

-- name: in_one_piece
WITH gone AS (
    DELETE FROM import_batch_part WHERE seqno = %(seqno)s
)
UPDATE import_batch SET parts = 1 WHERE seqno = %(seqno)s

-- name: join
-- The first one after a rest takes the batch on for all parts: whoever was at it before is fenced off.
UPDATE import_batch
SET status = 'in_progress', epoch = epoch + CASE WHEN status = 'in_progress' THEN 0 ELSE 1 END, waits_because = NULL,
    started_at = coalesce(started_at, now()),
    run_id = coalesce(%(run_id)s, run_id),
    leased_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = %(seqno)s

-- name: claim_part
UPDATE import_batch_part SET epoch = epoch + 1, attempts = attempts + 1
WHERE seqno = %(seqno)s AND part = %(part)s
RETURNING epoch, attempts, validated

-- name: part_taken
SELECT epoch FROM import_batch_part WHERE seqno = %(seqno)s AND part = %(part)s AND epoch <> %(part_epoch)s

-- name: mark_part
UPDATE import_batch_part SET attempts = 0, validated = coalesce(%(last)s, validated)
WHERE seqno = %(seqno)s AND part = %(part)s

-- name: patience
SET LOCAL lock_timeout = '60s'

-- name: impatience
SET LOCAL lock_timeout = '3s'

-- name: no_impatience
SET LOCAL lock_timeout = DEFAULT

-- name: stop
-- The request that stopped the batch last.
SELECT event, by, detail FROM import_batch_event
WHERE seqno = %(seqno)s AND event IN ('paused', 'cancelled')
ORDER BY event_id DESC
LIMIT 1

-- name: wait
UPDATE import_batch
SET status = CASE WHEN %(in_progress)s THEN status ELSE 'waiting' END, attempts = 0, waits_because = %(reason)s
WHERE seqno = %(seqno)s AND status = 'in_progress'

-- name: keep
UPDATE import_batch SET leased_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = %(seqno)s AND run_id = %(run_id)s AND status IN ('waiting', 'in_progress')

-- name: ahead
-- An earlier batch with a worker, or one that waits its turn in a run that works at one that is earlier still or next.
SELECT seqno
FROM import_batch AS b
WHERE kind = %(kind)s AND domain_id = %(domain_id)s AND seqno < %(seqno)s AND status IN ('waiting', 'in_progress')
  AND (leased_until >= now()
       OR status = 'waiting' AND EXISTS (
           SELECT FROM import_batch AS other
           WHERE other.run_id = b.run_id AND other.seqno < %(seqno)s AND other.status IN ('waiting', 'in_progress')
             AND other.leased_until >= now()))
ORDER BY seqno
LIMIT 1

-- name: lacking_raw
SELECT DISTINCT seqno
FROM import_record JOIN import_batch AS b USING (seqno, domain_id)
WHERE kind = %(kind)s AND b.status IN ('executed', 'cancelled') AND NOT processed
  AND raw IS NULL AND outcome IN ('rejected', 'ignored', 'parked')
ORDER BY seqno

-- name: unread
-- Batches that were cancelled before anybody read them; not those whose records cannot be counted.
SELECT seqno
FROM import_batch AS b
WHERE kind = %(kind)s AND status = 'cancelled' AND records_in_file IS NULL
  AND NOT EXISTS (SELECT FROM import_batch_event AS e WHERE e.seqno = b.seqno AND event = 'not counted')
ORDER BY seqno

-- name: count_unread
UPDATE import_batch SET records_in_file = %(records)s, unprocessed = %(records)s WHERE seqno = %(seqno)s

-- name: reopen
UPDATE import_batch
SET status = 'waiting', reopened = reopened + 1, import_completed = false, processed = false,
    error_rule = NULL, error_message = NULL, processed_at = NULL, unprocessed = 0, attempts = 0
WHERE seqno = %(seqno)s

-- name: forget_unprocessed
DELETE FROM import_record WHERE seqno = %(seqno)s AND outcome = 'unprocessed'

-- name: forget_records
DELETE FROM import_record WHERE seqno = %(seqno)s

-- name: start_over
UPDATE import_batch
SET validated_at = NULL, records_in_file = NULL, validated_records = 0, staged_records = 0,
    loaded_records = 0, rejected = 0, warnings = '[]', columns = '{}'
WHERE seqno = %(seqno)s

-- name: hold
-- The lease of a worker that still has the batch, or its part of it.
UPDATE import_batch
SET leased_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = %(seqno)s AND epoch = %(epoch)s AND status = 'in_progress'
  AND (%(part)s::integer IS NULL OR EXISTS (
      SELECT FROM import_batch_part AS p WHERE p.seqno = %(seqno)s AND p.part = %(part)s AND p.epoch = %(part_epoch)s))
RETURNING seqno

-- name: held
SELECT seqno FROM import_batch WHERE seqno = %(seqno)s AND epoch = %(epoch)s AND status = 'in_progress'
  AND (%(part)s::integer IS NULL OR EXISTS (
      SELECT FROM import_batch_part AS p WHERE p.seqno = %(seqno)s AND p.part = %(part)s AND p.epoch = %(part_epoch)s))

-- name: roll_back
SELECT seqno FROM import_batch_roll_back WHERE seqno = %(seqno)s

-- name: removed
-- What the batch does not keep any more.
SELECT what, days, CASE what WHEN 'file' THEN 'its file is' WHEN 'staging' THEN 'its staged records are'
                             WHEN 'ledger' THEN 'its records are'
                             ELSE 'the cells of its refused records are' END AS words
FROM import_batch_removed
WHERE seqno = %(seqno)s
ORDER BY what

-- name: set_records
UPDATE import_batch
SET records_in_file = %(records)s, warnings = %(warnings)s, columns = %(columns)s
WHERE seqno = %(seqno)s

-- name: mark_validated
UPDATE import_batch
SET validated_records = validated_records + %(records)s, attempts = 0,
    staged_records = staged_records + %(staged)s, rejected = rejected + %(rejected)s,
    leased_until = now() + make_interval(secs => %(lease_seconds)s)
WHERE seqno = %(seqno)s

-- name: finish_validation
UPDATE import_batch SET validated_at = now(), import_completed = true, attempts = 0 WHERE seqno = %(seqno)s

-- name: count_loaded
UPDATE import_batch
SET leased_until = now() + make_interval(secs => %(lease_seconds)s), loaded_records = loaded_records + %(records)s,
    attempts = 0,
    created = created + %(created)s, updated = updated + %(updated)s, unchanged = unchanged + %(unchanged)s,
    historic = historic + %(historic)s, ignored = ignored + %(ignored)s, parked = parked + %(parked)s,
    rejected = rejected + %(rejected)s
WHERE seqno = %(seqno)s

-- name: finish
UPDATE import_batch SET status = 'executed', processed = true, processed_at = statement_timestamp(), leased_until = NULL
WHERE seqno = %(seqno)s

-- name: fail
UPDATE import_batch
SET status = 'executed', processed = false, processed_at = statement_timestamp(), leased_until = NULL,
    import_completed = %(import_completed)s, error_rule = %(rule)s, error_message = %(message)s,
    unprocessed = %(unprocessed)s
WHERE seqno = %(seqno)s

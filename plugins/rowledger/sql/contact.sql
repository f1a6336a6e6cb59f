-- name: all_records
SELECT record_no, external_id, email FROM {staging}

-- name: conflicting_one
-- The template finds contacts by one key, and the other key belongs to somebody else.
(by_external_id IS NOT NULL AND by_external_id IS DISTINCT FROM {found}
 OR by_email IS NOT NULL AND by_email IS DISTINCT FROM {found})

-- name: conflicting_two
-- The keys lead to two contacts, or the email to one that has another external id.
(by_external_id IS NOT NULL AND by_email IS NOT NULL AND by_external_id <> by_email
 OR by_external_id IS NULL AND external_id IS NOT NULL AND by_email IS NOT NULL AND owner_external_id IS NOT NULL)

-- name: owners
-- For each of some records the stored contacts that have its external id and its email. LIMIT keeps the planner at one
-- index look-up per record, whatever it believes about the size of contact; the second is spared where the first says
-- enough.
SELECT s.*, a.contact_id AS by_external_id, b.external_id AS owner_external_id,
       CASE WHEN a.folded_email = lower({email} COLLATE "C") THEN a.contact_id ELSE b.contact_id END AS by_email
FROM ({records}) AS s
LEFT JOIN LATERAL (
    SELECT contact_id, lower(email) AS folded_email
    FROM contact WHERE domain_id = %(domain_id)s AND external_id = {external_id} LIMIT 1
) AS a ON true
LEFT JOIN LATERAL (
    SELECT contact_id, external_id
    FROM contact
    WHERE a.folded_email IS DISTINCT FROM lower({email} COLLATE "C")
      AND domain_id = %(domain_id)s AND lower(email) = lower({email} COLLATE "C")
    LIMIT 1
) AS b ON true

-- name: strays
-- Records of the file that lead to a stored contact other than by its external id and email alike; mostly none.
CREATE TEMPORARY TABLE stray ON COMMIT DROP AS
SELECT record_no, {conflicting} AS conflicting
FROM ({owners}) AS owners
WHERE {conflicting} OR by_email IS DISTINCT FROM by_external_id AND by_email IS NOT NULL

-- name: set_apart
-- A record whose keys lead to different contacts belongs to neither: it gets a match key of its own, which no cell can
-- have, so that it draws no other record into its fate.
UPDATE {staging} AS s SET match_key = E'\x01' || s.record_no
FROM stray
WHERE s.record_no = stray.record_no AND stray.conflicting

-- name: links
-- Whether two match keys of the file may lead to one contact: through a key that both have, or through a stored
-- contact. Hashes, so that a million keys need little memory; two that collide by chance cost time and no more.
-- Whoever shares the first key shares the match key: only the other one is looked at.
SELECT EXISTS (
    SELECT FROM {staging} AS s
    WHERE {other_key} IS NOT NULL AND NOT starts_with(match_key, E'\x01')
    GROUP BY hashtextextended({other_key}, 0)
    HAVING min(hashtextextended(match_key, 0)) <> max(hashtextextended(match_key, 0))
) OR EXISTS (SELECT FROM stray WHERE NOT conflicting) AS found

-- name: arrange
-- Every link (a key, or the stored contact a key leads to) names the least match key of the records that have it.
WITH record AS (
    SELECT record_no, match_key, external_id, lower(email COLLATE "C") AS email
    FROM {staging} WHERE NOT starts_with(match_key, E'\x01')
),
link AS (
    SELECT record_no, match_key, 'external ' || external_id AS link FROM record WHERE external_id IS NOT NULL
    UNION ALL
    SELECT record_no, match_key, 'email ' || email FROM record WHERE email IS NOT NULL
    UNION ALL
    SELECT record_no, match_key, 'contact ' || contact_id
    FROM record JOIN contact ON domain_id = %(domain_id)s AND contact.external_id = record.external_id
    UNION ALL
    SELECT record_no, match_key, 'contact ' || contact_id
    FROM record JOIN contact ON domain_id = %(domain_id)s AND lower(contact.email) = record.email
),
least AS (
    SELECT link, min(match_key) AS match_key FROM link GROUP BY link HAVING min(match_key) <> max(match_key)
),
nearer AS (
    SELECT record_no, min(least.match_key) AS match_key FROM link JOIN least USING (link) GROUP BY record_no
)
UPDATE {staging} AS s SET match_key = nearer.match_key
FROM nearer WHERE s.record_no = nearer.record_no AND nearer.match_key < s.match_key

-- name: find
-- The records of a chunk and the contacts they lead to. A statement of its own: looked up while new contacts are being
-- inserted, an index that the planner chose for an empty table would be read again and again.
CREATE TEMPORARY TABLE source ON COMMIT DROP AS
SELECT *, {found} AS contact_id, starts_with(match_key, E'\x01') OR {conflicting} AS conflicting
FROM ({owners}) AS owners

-- name: chunk
SELECT record_no, match_key, warnings, {fields},
       max(record_no) OVER (PARTITION BY match_key) AS last_no,
       count(*) OVER (PARTITION BY match_key) > 1 AS repeated
FROM {staging}
WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: merge
-- Records of a key that occurs more than once: does each say the same as the last one?
WITH repeat AS (
    SELECT r.record_no, r.match_key, ROW({theirs}) IS NOT DISTINCT FROM ROW({last}) AS same
    FROM source AS r JOIN source AS l ON l.record_no = r.last_no
    WHERE r.repeated
),
winner AS (
    SELECT match_key, min(record_no) AS record_no FROM repeat WHERE same GROUP BY match_key
),
merged AS (
    MERGE INTO contact AS t
    USING (
        SELECT * FROM source
        WHERE NOT conflicting AND (NOT repeated OR record_no IN (SELECT record_no FROM winner))
    ) AS s
    ON t.contact_id = s.contact_id
    WHEN MATCHED AND ({changed}) THEN
        UPDATE SET {assignments}, updated_at = now()
    WHEN NOT MATCHED THEN
        INSERT (domain_id, {fields}) VALUES (%(domain_id)s, {staged})
    RETURNING merge_action() AS action, s.record_no, t.contact_id
),
touched AS (
    SELECT source.record_no, merged.action, conflicting,
           CASE WHEN NOT conflicting THEN coalesce(merged.contact_id, source.contact_id) END AS contact_id
    FROM source LEFT JOIN merged USING (record_no)
    WHERE NOT repeated OR record_no IN (SELECT record_no FROM winner)
),
origins AS (
    INSERT INTO contact_origin (contact_id, origin_id, seqno, record_no)
    SELECT contact_id, origin_id, %(seqno)s, record_no
    FROM touched CROSS JOIN (SELECT origin_id FROM import_batch_origin WHERE seqno = %(seqno)s) AS named
    WHERE NOT conflicting
    ON CONFLICT DO NOTHING
    RETURNING record_no
),
-- An opt-out is kept: whoever has a row for the list, opted in or out, keeps it.
subscriptions AS (
    INSERT INTO contact_subscription (contact_id, subscription_id, opted_in)
    SELECT contact_id, subscription_id, true
    FROM touched
    CROSS JOIN (SELECT subscription_id FROM import_batch_subscription WHERE seqno = %(seqno)s) AS named
    WHERE NOT conflicting
    ON CONFLICT DO NOTHING
    RETURNING contact_id, subscription_id
),
subscribed AS (
    INSERT INTO subscription_history (contact_id, subscription_id, opted_in, seqno, record_no)
    SELECT contact_id, subscription_id, true, %(seqno)s, record_no
    FROM subscriptions JOIN touched USING (contact_id)
    RETURNING record_no
),
opted_out AS (
    SELECT record_no, jsonb_agg(jsonb_build_object(
               'rule', 'opted_out_kept', 'column', NULL, 'value', list_id,
               'message', format('The contact has opted out of "%%s" and stays out.', name))) AS warnings
    FROM touched
    JOIN contact_subscription USING (contact_id)
    JOIN import_batch_subscription USING (subscription_id)
    JOIN subscription USING (subscription_id)
    WHERE import_batch_subscription.seqno = %(seqno)s AND NOT opted_in
    GROUP BY record_no
),
decided AS (
    SELECT source.record_no, touched.contact_id,
           CASE
               WHEN touched.conflicting THEN 'conflicting_keys'
               WHEN touched.record_no IS NULL AND repeat.same THEN 'duplicate_in_file'
               WHEN touched.record_no IS NULL THEN 'superseded_in_file'
           END AS rule,
           CASE
               WHEN touched.conflicting OR (touched.record_no IS NULL AND NOT repeat.same) THEN 'rejected'
               WHEN touched.record_no IS NULL THEN 'unchanged'
               WHEN touched.action = 'INSERT' THEN 'created'
               WHEN touched.action = 'UPDATE' OR linked.record_no IS NOT NULL THEN 'updated'
               ELSE 'unchanged'
           END AS outcome,
           source.last_no,
           nullif(coalesce(source.warnings, '[]') || coalesce(opted_out.warnings, '[]'), '[]') AS warnings
    FROM source
    LEFT JOIN touched USING (record_no)
    LEFT JOIN repeat USING (record_no)
    LEFT JOIN opted_out USING (record_no)
    LEFT JOIN (SELECT record_no FROM origins UNION SELECT record_no FROM subscribed) AS linked USING (record_no)
),
written AS (
    INSERT INTO import_record (seqno, record_no, outcome, target_id, warnings, reasons)
    SELECT %(seqno)s, record_no, outcome, CASE WHEN rule IS NULL THEN contact_id END,
        CASE WHEN rule = 'duplicate_in_file' THEN coalesce(warnings, '[]') || jsonb_build_array(jsonb_build_object(
            'rule', rule, 'column', NULL, 'value', NULL,
            'message', 'Another record of the file says exactly the same about this contact.'))
        ELSE warnings END,
        CASE rule
            WHEN 'conflicting_keys' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(key_columns)s::text, 'value', NULL,
                'message', format('%%s lead to different contacts.', %(key_columns)s::text)))
            WHEN 'superseded_in_file' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', NULL, 'value', NULL,
                'message', format('Record %%s of the same file is about the same contact and comes later; it was taken instead.',
                                  last_no)))
        END
    FROM decided
    ORDER BY record_no
    RETURNING outcome
)
SELECT outcome, count(*) AS records FROM written GROUP BY outcome

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
-- enough. BETWEEN with ORDER BY keeps it at the index of the key: for = it takes either index of an empty table, and
-- reads all of it for every record while somebody else fills the table.
SELECT s.*, a.contact_id AS by_external_id, b.external_id AS owner_external_id,
       CASE WHEN a.folded_email = lower({email} COLLATE "C") THEN a.contact_id ELSE b.contact_id END AS by_email
FROM ({records}) AS s
LEFT JOIN LATERAL (
    SELECT contact_id, lower(email) AS folded_email
    FROM contact WHERE domain_id = %(domain_id)s AND external_id BETWEEN {external_id} AND {external_id}
    ORDER BY external_id LIMIT 1
) AS a ON true
LEFT JOIN LATERAL (
    SELECT contact_id, external_id
    FROM contact
    WHERE a.folded_email IS DISTINCT FROM lower({email} COLLATE "C")
      AND domain_id = %(domain_id)s AND lower(email) BETWEEN lower({email} COLLATE "C") AND lower({email} COLLATE "C")
    ORDER BY lower(email) LIMIT 1
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

-- name: chunk
SELECT record_no, match_key, warnings, {staged}
FROM {staging}
WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: about_one
-- The template finds contacts by one key: another value of it is another contact.
own_id

-- name: about_two
-- Whose own keys find nobody is about the one contact that the records which share keys with it find, if that has no
-- external id or the record names none.
CASE WHEN own_id IS NULL AND refused IS NULL
      AND min(own_id) FILTER (WHERE refused IS NULL) OVER of_contact = max(own_id) FILTER (WHERE refused IS NULL) OVER of_contact
      AND (external_id IS NULL
           OR NOT bool_or(by_external_id IS NOT NULL OR owner_external_id IS NOT NULL)
                  FILTER (WHERE refused IS NULL) OVER of_contact)
     THEN min(own_id) FILTER (WHERE refused IS NULL) OVER of_contact ELSE own_id END

-- name: find
-- The records of a chunk and the contacts they lead to. A statement of its own: looked up while new contacts are being
-- inserted, an index that the planner chose for an empty table would be read again and again.
CREATE TEMPORARY TABLE source ON COMMIT DROP AS
SELECT *, {about} AS contact_id,
       max(record_no) FILTER (WHERE refused IS NULL) OVER of_contact AS last_no,
       refused IS NULL AND count(*) FILTER (WHERE refused IS NULL) OVER of_contact > 1 AS repeated
FROM (
    SELECT *, {found} AS own_id,
           CASE WHEN starts_with(match_key, E'\x01') OR {conflicting} THEN 'conflicting_keys' {refused_by_mode} END AS refused
    FROM ({owners}) AS owners
) AS judged
WINDOW of_contact AS (PARTITION BY match_key)

-- name: named_at_upload
-- What the person named at upload for every contact of the batch, each in the order in which it is added.
SELECT ARRAY(SELECT origin_id FROM import_batch_origin JOIN origin USING (origin_id)
             WHERE seqno = %(seqno)s ORDER BY code) AS origins,
       ARRAY(SELECT subscription_id FROM import_batch_subscription JOIN subscription USING (subscription_id)
             WHERE seqno = %(seqno)s ORDER BY display_sequence, list_id) AS subscriptions

-- name: merge
-- Records of a contact that occurs more than once: does each say the same as the last one?
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
        WHERE refused IS NULL AND (NOT repeated OR record_no IN (SELECT record_no FROM winner))
    ) AS s
    ON t.contact_id = s.contact_id
    WHEN MATCHED AND ({changed}) THEN
        UPDATE SET {assignments}updated_at = now()
    WHEN NOT MATCHED THEN
        INSERT (domain_id, {fields}) VALUES (%(domain_id)s, {inserted})
    RETURNING merge_action() AS action, s.record_no, t.contact_id,
              CASE WHEN merge_action() = 'UPDATE' THEN {before} END AS before
),
-- The records that were taken, and those that are refused.
touched AS (
    SELECT record_no, refused, action, before, coalesce(merged.contact_id, s.contact_id) AS contact_id,
           {origins} AS origins, {subscriptions} AS subscriptions, {opt_outs} AS opt_outs
    FROM source AS s LEFT JOIN merged USING (record_no)
    WHERE NOT repeated OR record_no IN (SELECT record_no FROM winner)
),
{links},
decided AS (
    SELECT s.record_no, touched.contact_id, touched.before, s.last_no,
           concat_ws(', ', {external_id}, {email}) AS keys,
           CASE
               WHEN touched.record_no IS NOT NULL THEN touched.refused
               WHEN repeat.same THEN 'duplicate_in_file'
               ELSE 'superseded_in_file'
           END AS rule,
           CASE
               WHEN touched.refused IN ('exists_already', 'unknown_contact') THEN 'ignored'
               WHEN touched.refused IS NOT NULL THEN 'rejected'
               WHEN touched.record_no IS NULL THEN CASE WHEN repeat.same THEN 'unchanged' ELSE 'rejected' END
               WHEN touched.action = 'INSERT' THEN 'created'
               WHEN touched.action = 'UPDATE' OR linked.changed THEN 'updated'
               ELSE 'unchanged'
           END AS outcome,
           nullif(coalesce(s.warnings, '[]') || coalesce(linked.warnings, '[]'), '[]') AS warnings
    FROM source AS s
    LEFT JOIN touched USING (record_no)
    LEFT JOIN repeat USING (record_no)
    LEFT JOIN linked USING (record_no)
),
written AS (
    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, before, warnings, reasons)
    SELECT %(seqno)s, record_no, %(domain_id)s, outcome,
        CASE WHEN rule IS NULL OR rule = 'exists_already' THEN contact_id END,
        before,
        CASE WHEN rule = 'duplicate_in_file' THEN coalesce(warnings, '[]') || jsonb_build_array(jsonb_build_object(
            'rule', rule, 'column', NULL, 'value', NULL,
            'message', 'Another record of the file says exactly the same about this contact.'))
        ELSE warnings END,
        CASE rule
            WHEN 'conflicting_keys' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(key_columns)s::text, 'value', NULL,
                'message', format('%%s lead to different contacts.', %(key_columns)s::text)))
            WHEN 'exists_already' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(key_columns)s::text, 'value', keys,
                'message', format('The contact "%%s" exists already, and this template only creates contacts.', keys)))
            WHEN 'unknown_contact' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(key_columns)s::text, 'value', keys,
                'message', format('There is no contact "%%s" in domain %%s, and this template creates none.',
                                  keys, %(domain)s::text)))
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

-- name: not_linked
-- Neither the template nor the upload names an origin or a list.
linked AS (SELECT NULL::integer AS record_no, false AS changed, NULL::jsonb AS warnings WHERE false)

-- name: linked
-- Origins: those of the record in the order of its cell, then those named at upload. One that is there already stays
-- where it is, so that the first stays the first.
origins AS (
    SELECT record_no, contact_id, origin_id, false AS at_upload, place
    FROM touched
    CROSS JOIN LATERAL unnest(origins) WITH ORDINALITY AS named (code, place)
    JOIN origin ON origin.domain_id = %(domain_id)s AND origin.code = named.code
    WHERE refused IS NULL
    UNION ALL
    SELECT record_no, contact_id, origin_id, true, place
    FROM touched CROSS JOIN unnest(%(origins)s::integer[]) WITH ORDINALITY AS named (origin_id, place)
    WHERE refused IS NULL
),
added AS (
    INSERT INTO contact_origin (contact_id, origin_id, seqno, record_no)
    SELECT contact_id, origin_id, %(seqno)s, record_no FROM origins ORDER BY record_no, at_upload, place
    ON CONFLICT DO NOTHING
    RETURNING record_no
),
-- What the record and the upload say about each list; the record's own opt-out wins.
wishes AS (
    SELECT record_no, contact_id, subscription_id, bool_and(opted_in) AS opted_in,
           bool_or(opted_in) AS wanted, bool_or(opted_in AND in_cell) AS wanted_in_cell
    FROM (
        SELECT record_no, contact_id, subscription_id, true AS opted_in, false AS in_cell
        FROM touched CROSS JOIN unnest(%(subscriptions)s::integer[]) AS subscription_id
        WHERE refused IS NULL
        UNION ALL
        SELECT record_no, contact_id, subscription_id, opted_in, true
        FROM touched
        CROSS JOIN LATERAL (
            SELECT list_id, true AS opted_in FROM unnest(subscriptions) AS list_id
            UNION ALL
            SELECT list_id, false FROM unnest(opt_outs) AS list_id
        ) AS named
        JOIN subscription USING (list_id)
        WHERE refused IS NULL AND subscription.domain_id = %(domain_id)s
    ) AS named
    GROUP BY record_no, contact_id, subscription_id
),
judged AS (
    SELECT wishes.*, stands.opted_in AS stood
    FROM wishes LEFT JOIN contact_subscription AS stands USING (contact_id, subscription_id)
),
-- An opt-out is kept: an import opts out who is in and opts in who has never been asked, nobody else.
entered AS (
    INSERT INTO contact_subscription AS stands (contact_id, subscription_id, opted_in)
    SELECT contact_id, subscription_id, opted_in FROM judged WHERE stood IS NULL OR stood AND NOT opted_in
    ON CONFLICT (contact_id, subscription_id) DO UPDATE SET opted_in = false, changed_at = now()
        WHERE stands.opted_in AND NOT excluded.opted_in
    RETURNING contact_id, subscription_id, opted_in
),
recorded AS (
    INSERT INTO subscription_history (contact_id, domain_id, subscription_id, opted_in, seqno, record_no)
    SELECT contact_id, %(domain_id)s, subscription_id, entered.opted_in, %(seqno)s, record_no
    FROM entered JOIN wishes USING (contact_id, subscription_id)
    RETURNING record_no
),
kept AS (
    SELECT record_no, jsonb_agg(jsonb_build_object(
               'rule', 'opted_out_kept', 'value', list_id,
               'column', CASE WHEN wanted_in_cell THEN %(subscriptions_column)s::text END,
               'message', CASE
                   WHEN stood IS NULL OR stood THEN format('The record opts out of "%%s" too; the opt-out counts.', name)
                   ELSE format('The contact has opted out of "%%s" and stays out.', name)
               END
           ) ORDER BY display_sequence, list_id) AS warnings
    FROM judged JOIN subscription USING (subscription_id)
    WHERE wanted AND (NOT judged.opted_in OR NOT stood)
    GROUP BY record_no
),
linked AS (
    SELECT record_no, changed.record_no IS NOT NULL AS changed, warnings
    FROM (SELECT record_no FROM added UNION SELECT record_no FROM recorded) AS changed
    FULL JOIN kept USING (record_no)
)

-- name: open
-- There is a place in the history for what is entered now, and if the year ends meanwhile.
SELECT open_history('subscription_history', %(domain_id)s, ARRAY[current_date, current_date + 365])

-- name: changes
-- What the records of a chunk changed: for a new contact all it has, for another what became of what was there before.
SELECT r.record_no, coalesce(now.fields ->> 'external_id', now.fields ->> 'email') AS about,
       CASE WHEN outcome = 'updated' THEN coalesce(r.before, '{{}}') END AS before,
       CASE WHEN outcome = 'created' THEN jsonb_strip_nulls(now.fields)
       ELSE coalesce((SELECT jsonb_object_agg(key, coalesce(now.fields -> key, 'null'))
                      FROM jsonb_object_keys(r.before) AS key), '{{}}')
       END || jsonb_strip_nulls(jsonb_build_object('origins', campaigns.codes, 'subscriptions', lists.joined, 'opt_outs', lists.gone)) AS after
FROM {staging} AS staged
JOIN import_record AS r USING (record_no)
CROSS JOIN LATERAL (
    SELECT to_jsonb(contact) - '{{contact_id,domain_id,created_at,updated_at,attributes}}'::text[] || coalesce(
        (SELECT jsonb_object_agg('attributes.' || key, value) FROM jsonb_each(attributes)), '{{}}') AS fields
    FROM contact WHERE contact_id = target_id
) AS now
CROSS JOIN LATERAL (
    SELECT jsonb_agg(code ORDER BY entry_id) AS codes
    FROM contact_origin AS added JOIN origin USING (origin_id)
    WHERE added.contact_id = target_id AND added.seqno = r.seqno AND added.record_no = r.record_no
) AS campaigns
CROSS JOIN LATERAL (
    SELECT jsonb_agg(list_id ORDER BY list_id) FILTER (WHERE opted_in) AS joined,
           jsonb_agg(list_id ORDER BY list_id) FILTER (WHERE NOT opted_in) AS gone
    FROM subscription_history AS h JOIN subscription USING (subscription_id)
    WHERE h.domain_id = %(domain_id)s AND h.contact_id = target_id AND h.seqno = r.seqno AND h.record_no = r.record_no
) AS lists
WHERE r.seqno = %(seqno)s AND outcome IN ('created', 'updated')
  AND (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: effects
-- What the records of a chunk did to contacts. A contact that a record created also stays if a contract names it.
WITH RECURSIVE reached (record_no, target_id, external_id, email) AS (
    SELECT record_no, target_id, before ->> 'external_id', before ->> 'email'
    FROM ({records}) AS r
    WHERE record_no > %(after)s AND record_no <= %(upto)s
    UNION
    -- A key that is to be given back may be with a contact that got it from the batch too: both are undone at once.
    SELECT r.record_no, r.target_id, r.before ->> 'external_id', r.before ->> 'email'
    FROM reached AS wants
    CROSS JOIN LATERAL ({holders}) AS holder
    CROSS JOIN LATERAL (SELECT * FROM ({records}) AS r WHERE r.target_id = holder.contact_id LIMIT 1) AS r
    WHERE wants.external_id IS NOT NULL OR wants.email IS NOT NULL
)
SELECT r.record_no, r.target_id, r.outcome, coalesce(now.fields ->> 'external_id', now.fields ->> 'email') AS about,
       CASE
           WHEN now.fields IS NULL THEN 'gone'
           WHEN later.reason IS NOT NULL THEN later.reason
           WHEN r.recorded_at < (
               SELECT first_day FROM history_kept
               WHERE history = 'subscription_history' AND domain_id = %(domain_id)s
                 AND (EXISTS (SELECT FROM import_batch_subscription WHERE seqno = %(seqno)s)
                      OR (SELECT columns ?| ARRAY['subscriptions', 'opt_outs'] FROM import_batch WHERE seqno = %(seqno)s))
           ) THEN 'history_not_kept'
           WHEN r.outcome = 'updated' AND r.before IS NULL
                AND r.recorded_at <= (SELECT applied_at FROM migration WHERE name = '0005_contacts.sql') THEN 'not_noted'
           WHEN named.form_id IS NOT NULL THEN 'named_by_contract'
           WHEN r.outcome = 'created' AND EXISTS (
               SELECT FROM subscription_history AS h
               WHERE h.domain_id = %(domain_id)s AND h.contact_id = r.target_id AND h.seqno IS NULL) THEN 'changed_by_hand'
       END AS reason,
       later.seqno AS later_seqno, later.record_no AS later_record_no,
       CASE WHEN later.reason IS NULL THEN named.form_id END AS detail,
       r.before, reached.external_id, reached.email,
       jsonb_build_object(
           'fields', CASE r.outcome
               WHEN 'created' THEN jsonb_strip_nulls(now.fields)
               ELSE coalesce((SELECT jsonb_object_agg(key, coalesce(now.fields -> key, 'null'))
                              FROM jsonb_object_keys(r.before) AS key), '{{}}')
           END,
           'origins', (
               SELECT coalesce(jsonb_agg(jsonb_build_object(
                          'code', code, 'added_at', added_at, 'seqno', seqno, 'record_no', added.record_no)
                          ORDER BY entry_id), '[]')
               FROM contact_origin AS added JOIN origin USING (origin_id)
               WHERE added.contact_id = r.target_id
                 AND (r.outcome = 'created' OR (added.seqno, added.record_no) = (%(seqno)s, r.record_no))),
           'subscription_history', (
               SELECT coalesce(jsonb_agg(jsonb_build_object(
                          'list_id', list_id, 'opted_in', opted_in, 'recorded_at', h.recorded_at, 'seqno', seqno,
                          'record_no', h.record_no, 'withdrawn_at', withdrawn_at)
                          ORDER BY history_id), '[]')
               FROM subscription_history AS h JOIN subscription USING (subscription_id)
               WHERE h.domain_id = %(domain_id)s AND h.contact_id = r.target_id
                 AND (r.outcome = 'created' OR (h.seqno, h.record_no) = (%(seqno)s, r.record_no)))
       ) AS removed
FROM reached
JOIN LATERAL (SELECT * FROM ({records}) AS r WHERE r.record_no = reached.record_no LIMIT 1) AS r ON true
LEFT JOIN LATERAL (
    SELECT to_jsonb(contact) - '{{contact_id,domain_id,attributes}}'::text[] || coalesce(
        (SELECT jsonb_object_agg('attributes.' || key, value) FROM jsonb_each(attributes)), '{{}}') AS fields
    FROM contact WHERE contact_id = r.target_id LIMIT 1
) AS now ON true
LEFT JOIN LATERAL ({later}) AS later ON true
LEFT JOIN LATERAL (
    SELECT form_id FROM contract
    WHERE contact_id = r.target_id AND (r.outcome = 'created' OR r.before ? 'external_id')
    ORDER BY form_id
    LIMIT 1
) AS named ON true

-- name: holders
-- The other contacts that have a key which is to be given back. BETWEEN, not =: see owners.
(SELECT contact_id, 'external_id' AS key
 FROM contact
 WHERE domain_id = %(domain_id)s AND external_id BETWEEN wants.external_id AND wants.external_id
   AND contact_id <> wants.target_id
 ORDER BY external_id LIMIT 1)
UNION ALL
(SELECT contact_id, 'email'
 FROM contact
 WHERE domain_id = %(domain_id)s AND contact_id <> wants.target_id
   AND lower(email) BETWEEN lower(wants.email COLLATE "C") AND lower(wants.email COLLATE "C")
 ORDER BY lower(email) LIMIT 1)

-- name: index_effects
CREATE INDEX ON effect (target_id)

-- name: spare_blocked
-- Whose key has gone to somebody who keeps it.
UPDATE effect AS blocked
SET reason = 'key_taken', detail = CASE taken.key WHEN 'email' THEN blocked.email ELSE blocked.external_id END
FROM (
    SELECT DISTINCT ON (wants.record_no) wants.record_no, holder.key
    FROM effect AS wants CROSS JOIN LATERAL ({holders}) AS holder
    WHERE wants.reason IS NULL AND (wants.external_id IS NOT NULL OR wants.email IS NOT NULL)
      AND NOT EXISTS (
          SELECT FROM effect AS theirs
          WHERE theirs.target_id = holder.contact_id AND theirs.reason IS NULL
            AND (theirs.outcome = 'created'
                 OR theirs.before ? holder.key AND CASE holder.key
                     WHEN 'email' THEN lower(theirs.email) IS DISTINCT FROM lower(wants.email)
                     ELSE theirs.external_id IS DISTINCT FROM wants.external_id
                 END))
    ORDER BY wants.record_no, holder.key DESC
) AS taken
WHERE blocked.record_no = taken.record_no

-- name: remove
-- What the record created, and all that is linked to it: roll_back_record keeps it.
WITH gone AS (
    SELECT target_id FROM effect WHERE reason IS NULL AND outcome = 'created'
),
origins AS (
    DELETE FROM contact_origin USING gone WHERE contact_id = target_id
),
subscriptions AS (
    DELETE FROM contact_subscription USING gone WHERE contact_id = target_id
),
history AS (
    DELETE FROM subscription_history USING gone WHERE domain_id = %(domain_id)s AND contact_id = target_id
)
DELETE FROM contact USING gone WHERE contact_id = target_id

-- name: remove_origins
DELETE FROM contact_origin AS added USING effect
WHERE reason IS NULL AND added.contact_id = target_id AND (added.seqno, added.record_no) = (%(seqno)s, effect.record_no)

-- name: withdraw
UPDATE subscription_history AS h SET withdrawn_at = statement_timestamp()
FROM effect
WHERE reason IS NULL AND h.domain_id = %(domain_id)s AND h.contact_id = target_id
  AND (h.seqno, h.record_no) = (%(seqno)s, effect.record_no)

-- name: stand_back
-- A contact stands with a list where the last entry that is left says, or nowhere.
MERGE INTO contact_subscription AS t
USING (
    SELECT DISTINCT h.contact_id, h.subscription_id, last.opted_in, last.recorded_at
    FROM effect
    JOIN subscription_history AS h
      ON h.domain_id = %(domain_id)s AND h.contact_id = target_id AND (h.seqno, h.record_no) = (%(seqno)s, effect.record_no)
    LEFT JOIN LATERAL (
        SELECT opted_in, recorded_at
        FROM subscription_history AS left_over
        WHERE left_over.domain_id = %(domain_id)s AND left_over.contact_id = h.contact_id AND left_over.subscription_id = h.subscription_id
          AND withdrawn_at IS NULL
        ORDER BY history_id DESC
        LIMIT 1
    ) AS last ON true
    WHERE reason IS NULL
) AS s
ON t.contact_id = s.contact_id AND t.subscription_id = s.subscription_id
WHEN MATCHED AND s.opted_in IS NULL THEN DELETE
WHEN MATCHED AND s.opted_in <> t.opted_in THEN UPDATE SET opted_in = s.opted_in, changed_at = s.recorded_at

-- name: free_keys
-- A unique index looks at each row as it is written: keys that go from one contact of the chunk to another are set to
-- nothing in between.
UPDATE contact
SET external_id = CASE WHEN NOT before ? 'external_id' THEN contact.external_id END,
    email = CASE WHEN NOT before ? 'email' THEN contact.email END
FROM effect
WHERE reason IS NULL AND outcome = 'updated' AND contact_id = effect.target_id
  AND contact_id IN (
      SELECT holder.contact_id
      FROM effect AS wants CROSS JOIN LATERAL ({holders}) AS holder
      WHERE wants.reason IS NULL AND (wants.external_id IS NOT NULL OR wants.email IS NOT NULL))

-- name: restore
UPDATE contact
SET {fields}, updated_at = now(),
    attributes = CASE WHEN was_attributes IS NULL THEN contact.attributes
                 ELSE nullif(jsonb_strip_nulls(coalesce(contact.attributes, '{{}}') || was_attributes), '{{}}') END
FROM (
    SELECT target_id, before, jsonb_populate_record(NULL::contact, before) AS was,
           (SELECT jsonb_object_agg(substr(key, length('attributes.') + 1), value)
            FROM jsonb_each(before) WHERE starts_with(key, 'attributes.')) AS was_attributes
    FROM effect
    WHERE reason IS NULL AND outcome = 'updated' AND before <> '{{}}'
) AS r
WHERE contact_id = r.target_id

-- name: restored_field
{field} = CASE WHEN before ? {key} THEN (was).{field} ELSE contact.{field} END

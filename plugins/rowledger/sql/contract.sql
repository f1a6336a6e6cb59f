-- name: merge
WITH chunk AS (
    SELECT record_no, warnings, form_id, sign_up_date, {contact} AS contact, {clears_contact} AS clears_contact
    FROM {staging}
    WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s
),
found AS (
    SELECT chunk.*, known.contract_id, person.contact_id,
           sign_up_date > current_date AND NOT %(future_allowed)s AS in_future,
           contact IS NOT NULL AND person.contact_id IS NULL AS unknown_contact
    FROM chunk
    -- LIMIT keeps the planner at one index look-up per record, whatever it believes about the size of the tables.
    LEFT JOIN LATERAL (
        SELECT contract_id FROM contract WHERE domain_id = %(domain_id)s AND form_id = chunk.form_id LIMIT 1
    ) AS known ON true
    LEFT JOIN LATERAL (
        -- BETWEEN, not =: see sql/contact.sql, owners.
        SELECT contact_id FROM contact
        WHERE domain_id = %(domain_id)s AND external_id BETWEEN chunk.contact AND chunk.contact
        ORDER BY external_id LIMIT 1
    ) AS person ON true
),
-- Rules that look at one record alone; rule is null for what may be written.
judged AS (
    SELECT *,
        CASE
            WHEN contract_id IS NOT NULL AND %(mode)s = 'create_only' THEN 'exists_already'
            WHEN contract_id IS NULL AND %(mode)s = 'update_only' THEN 'unknown_contract'
            WHEN in_future OR unknown_contact AND NOT %(unknown_contact_ignored)s THEN 'refused'
        END AS rule
    FROM found
),
-- Of several records about one contract the last wins, or the first of those that say the same.
compared AS (
    SELECT *, last_value(record_no) OVER of_contract AS last_no,
           ROW(sign_up_date, contact, clears_contact) IS NOT DISTINCT FROM
               ROW(last_value(sign_up_date) OVER of_contract, last_value(contact) OVER of_contract,
                   last_value(clears_contact) OVER of_contract) AS same_as_last
    FROM judged
    WHERE rule IS NULL
    WINDOW of_contract AS (PARTITION BY form_id ORDER BY record_no
                           ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
),
ranked AS (
    SELECT *, same_as_last AND row_number() OVER (PARTITION BY form_id, same_as_last ORDER BY record_no) = 1 AS wins
    FROM compared
),
initial AS (
    SELECT status_id FROM contract_status WHERE domain_id = %(domain_id)s AND initial
),
merged AS (
    MERGE INTO contract AS t
    USING (
        SELECT ranked.*, initial.status_id AS initial_id,
               CASE WHEN initial.status_id IS NOT NULL THEN sign_up_date END AS initial_date
        FROM ranked LEFT JOIN initial ON true
        WHERE wins
        ORDER BY contract_id, form_id
    ) AS s
    ON t.contract_id = s.contract_id
    WHEN MATCHED AND (t.sign_up_date IS DISTINCT FROM {new_date} OR t.contact_id IS DISTINCT FROM {new_contact}) THEN
        UPDATE SET sign_up_date = {new_date}, contact_id = {new_contact}
    WHEN NOT MATCHED THEN
        INSERT (domain_id, form_id, sign_up_date, contact_id, status_id, date_result)
        VALUES (%(domain_id)s, s.form_id, s.sign_up_date, s.contact_id, s.initial_id, s.initial_date)
    RETURNING merge_action() AS action, s.record_no, t.contract_id, s.initial_id, s.initial_date,
        CASE WHEN merge_action() = 'UPDATE' THEN
            CASE WHEN old.sign_up_date <> new.sign_up_date
                 THEN jsonb_build_object('sign_up_date', old.sign_up_date) ELSE '{{}}' END
            || CASE WHEN old.contact_id IS DISTINCT FROM new.contact_id THEN jsonb_build_object('contact',
                    (SELECT external_id FROM contact WHERE contact.contact_id = old.contact_id)) ELSE '{{}}' END
        END AS before
),
entered AS (
    INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
    SELECT contract_id, %(domain_id)s, initial_id, initial_date, 'initial'
    FROM merged
    WHERE action = 'INSERT' AND initial_id IS NOT NULL
    ORDER BY contract_id
),
decided AS (
    SELECT record_no, warnings, form_id, sign_up_date, contact, contract_id,
           rule, in_future, unknown_contact, NULL::integer AS last_no, NULL AS action, NULL::jsonb AS before
    FROM judged
    WHERE rule IS NOT NULL
    UNION ALL
    SELECT record_no, warnings, form_id, sign_up_date, contact, coalesce(merged.contract_id, ranked.contract_id),
           CASE WHEN NOT wins THEN CASE WHEN same_as_last THEN 'repeated' ELSE 'superseded' END END,
           false, unknown_contact, last_no, action, before
    FROM ranked LEFT JOIN merged USING (record_no)
),
explained AS (
    SELECT record_no, contract_id, rule, before,
        CASE
            WHEN rule IS NULL AND action IS NULL OR rule = 'repeated' THEN 'unchanged'
            WHEN rule IS NULL THEN CASE action WHEN 'INSERT' THEN 'created' ELSE 'updated' END
            WHEN rule IN ('exists_already', 'unknown_contract') THEN 'ignored'
            ELSE 'rejected'
        END AS outcome,
        CASE rule
            WHEN 'exists_already' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(form_id_column)s::text, 'value', form_id,
                'message', format('Contract "%%s" is registered already, and this template only creates contracts.', form_id)))
            WHEN 'unknown_contract' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(form_id_column)s::text, 'value', form_id,
                'message', format('There is no contract "%%s" in domain %%s, and this template creates none.',
                                  form_id, %(domain)s::text)))
            WHEN 'superseded' THEN jsonb_build_array(jsonb_build_object(
                'rule', 'superseded_in_file', 'column', NULL, 'value', NULL,
                'message', format('Record %%s of the same file is about the same contract and comes later; it was taken instead.',
                                  last_no)))
            WHEN 'refused' THEN
                CASE WHEN in_future THEN jsonb_build_array(jsonb_build_object(
                    'rule', 'future_date', 'column', %(sign_up_date_column)s::text,
                    'value', to_char(sign_up_date, %(date_format)s),
                    'message', format('%%s %%s lies in the future.', %(sign_up_date_column)s::text,
                                      to_char(sign_up_date, %(date_format)s))))
                ELSE '[]' END
                || CASE WHEN unknown_contact AND NOT %(unknown_contact_ignored)s
                        THEN jsonb_build_array(jsonb_build_object(
                            'rule', 'unknown_contact', 'column', %(contact_column)s::text, 'value', contact,
                            'message', format('There is no contact "%%s" in domain %%s.', contact, %(domain)s::text)))
                   ELSE '[]' END
        END AS reasons,
        nullif(
            coalesce(warnings, '[]')
            || CASE WHEN unknown_contact AND rule IS NULL THEN jsonb_build_array(jsonb_build_object(
                   'rule', 'unknown_contact', 'column', %(contact_column)s::text, 'value', contact,
                   'message', format('There is no contact "%%s" in domain %%s; the contract was taken without it.',
                                     contact, %(domain)s::text)))
               ELSE '[]' END
            || CASE WHEN rule = 'repeated' THEN jsonb_build_array(jsonb_build_object(
                   'rule', 'duplicate_in_file', 'column', NULL, 'value', NULL,
                   'message', 'Another record of the file says exactly the same about this contract.'))
               ELSE '[]' END,
            '[]') AS warnings
    FROM decided
),
written AS (
    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, before, warnings, reasons)
    SELECT %(seqno)s, record_no, %(domain_id)s, outcome, CASE WHEN rule IS NULL THEN contract_id END, before, warnings, reasons
    FROM explained
    ORDER BY record_no
    RETURNING outcome
)
SELECT outcome, count(*) AS records FROM written GROUP BY outcome

-- name: open
-- There is a place in the history for the initial statuses of the chunk.
SELECT open_history('status_history', %(domain_id)s, array_agg(DISTINCT date_trunc('year', sign_up_date)::date))
FROM {staging}
WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND (%(upto)s::text IS NULL OR match_key <= %(upto)s)

-- name: changes
-- What the records of a chunk changed: for a new contract all it has, for another what became of what was there before.
SELECT record_no, now.fields ->> 'form_id' AS about, r.before,
       CASE WHEN outcome = 'created' THEN jsonb_strip_nulls(now.fields)
       ELSE coalesce((SELECT jsonb_object_agg(key, coalesce(now.fields -> key, 'null'))
                      FROM jsonb_object_keys(r.before) AS key), '{{}}')
       END AS after
FROM {staging} AS staged
JOIN import_record AS r USING (record_no)
CROSS JOIN LATERAL (
    SELECT jsonb_build_object('form_id', form_id, 'sign_up_date', sign_up_date, 'contact', external_id,
                              'status', code) AS fields
    FROM contract
    LEFT JOIN contact USING (contact_id)
    LEFT JOIN contract_status USING (status_id)
    WHERE contract_id = target_id
) AS now
WHERE r.seqno = %(seqno)s AND outcome IN ('created', 'updated')
  AND (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: effects
-- What the records of a chunk did to contracts. A contract that a record created also stays if it has got a status.
SELECT r.record_no, r.target_id, r.outcome, now.form_id AS about,
       CASE
           WHEN now.contract_id IS NULL THEN 'gone'
           WHEN later.reason IS NOT NULL THEN later.reason
           WHEN by_reference.change_id IS NOT NULL THEN 'changed_by_reference'
           WHEN r.outcome = 'created' AND status.reason IS NOT NULL THEN status.reason
           WHEN was.external_id IS NOT NULL AND was.contact_id IS NULL THEN 'contact_gone'
       END AS reason,
       coalesce(later.seqno, status.seqno) AS later_seqno, coalesce(later.record_no, status.record_no) AS later_record_no,
       CASE
           WHEN later.reason IS NOT NULL THEN NULL
           WHEN by_reference.change_id IS NOT NULL THEN by_reference.by
           ELSE coalesce(status.code, was.external_id)
       END AS detail,
       r.before, was.contact_id,
       CASE r.outcome
           WHEN 'created' THEN jsonb_build_object(
               'fields', jsonb_strip_nulls(now.fields),
               'status_history', (
                   SELECT coalesce(jsonb_agg(jsonb_build_object(
                              'status', code, 'date_result', h.date_result, 'cause', cause, 'recorded_at', recorded_at,
                              'seqno', h.seqno, 'record_no', h.record_no, 'withdrawn_at', withdrawn_at)
                              ORDER BY history_id), '[]')
                   FROM status_history AS h JOIN contract_status USING (status_id)
                   WHERE h.domain_id = %(domain_id)s AND h.contract_id = r.target_id))
           ELSE jsonb_build_object('fields', (
               SELECT jsonb_object_agg(key, coalesce(now.fields -> key, 'null')) FROM jsonb_object_keys(r.before) AS key))
       END AS removed
FROM ({records}) AS r
LEFT JOIN LATERAL (
    SELECT contract_id, contract.domain_id, form_id,
           jsonb_build_object('form_id', form_id, 'sign_up_date', sign_up_date, 'contact', external_id) AS fields
    FROM contract LEFT JOIN contact USING (contact_id)
    WHERE contract_id = r.target_id
    LIMIT 1
) AS now ON true
LEFT JOIN LATERAL ({later}) AS later ON true
LEFT JOIN LATERAL (
    SELECT change_id, by FROM reference_change
    WHERE domain_id = now.domain_id AND sort = 'contract' AND code = now.form_id COLLATE "default" AND changed_at >= r.recorded_at
    ORDER BY change_id DESC
    LIMIT 1
) AS by_reference ON true
-- Statuses that were entered, and imports that said what the initial one says.
LEFT JOIN LATERAL (
    SELECT * FROM (
        (SELECT CASE cause WHEN 'timer' THEN 'timer' ELSE 'has_status' END AS reason, h.seqno, h.record_no,
                (SELECT code FROM contract_status AS s WHERE s.status_id = h.status_id AND cause = 'timer') AS code
         FROM status_history AS h
         WHERE r.outcome = 'created' AND h.domain_id = %(domain_id)s AND h.contract_id = r.target_id
           AND h.withdrawn_at IS NULL AND (cause <> 'initial' OR had IS NOT NULL)
         ORDER BY history_id DESC
         LIMIT 1)
        UNION ALL
        SELECT 'has_status', said.seqno, said.record_no, NULL FROM ({later_status}) AS said WHERE r.outcome = 'created'
    ) AS given
    LIMIT 1
) AS status ON true
LEFT JOIN LATERAL (
    SELECT r.before ->> 'contact' AS external_id,
           (SELECT contact_id FROM contact
            WHERE domain_id = %(domain_id)s AND external_id BETWEEN r.before ->> 'contact' AND r.before ->> 'contact'
            ORDER BY external_id LIMIT 1) AS contact_id
) AS was ON true
WHERE r.record_no > %(after)s AND r.record_no <= %(upto)s

-- name: remove
-- What the record created; also its entries that were withdrawn before: roll_back_record keeps them.
WITH gone AS (
    SELECT target_id FROM effect WHERE reason IS NULL AND outcome = 'created'
),
history AS (
    DELETE FROM status_history USING gone WHERE domain_id = %(domain_id)s AND contract_id = target_id
)
DELETE FROM contract USING gone WHERE contract_id = target_id

-- name: restore
UPDATE contract
SET sign_up_date = coalesce((before ->> 'sign_up_date')::date, sign_up_date),
    contact_id = CASE WHEN before ? 'contact' THEN effect.contact_id ELSE contract.contact_id END
FROM effect
WHERE reason IS NULL AND outcome = 'updated' AND contract.contract_id = target_id

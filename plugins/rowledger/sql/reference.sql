-- name: begin
-- One change of reference data at a time: who comes second sees what the first has done.
SELECT pg_advisory_xact_lock(hashtext('rowledger reference')),
       set_config('rowledger.by', %(by)s, true), set_config('rowledger.file', %(file)s, true)

-- name: read_domain
SELECT code, name, retired FROM domain
WHERE coalesce(code = %(code)s, true)
ORDER BY code

-- name: read_phase
SELECT code, description, retired FROM contract_phase
WHERE domain_id = %(domain_id)s AND coalesce(code = %(code)s, true)
ORDER BY code

-- name: read_status
SELECT s.code, p.code AS phase, s.description, initial, definitive, churn, automatic_after_days, s.retired
FROM contract_status AS s JOIN contract_phase AS p USING (phase_id)
WHERE s.domain_id = %(domain_id)s AND coalesce(s.code = %(code)s, true)
ORDER BY s.code

-- name: read_origin
SELECT code, name, active FROM origin
WHERE domain_id = %(domain_id)s AND coalesce(code = %(code)s, true)
ORDER BY code

-- name: read_subscription
SELECT list_id, name, type, display_sequence, disabled FROM subscription
WHERE domain_id = %(domain_id)s AND coalesce(list_id = %(code)s, true)
ORDER BY display_sequence, list_id

-- name: save_domain
INSERT INTO domain (code, name, retired)
SELECT given.code, given.name, coalesce(given.retired, stored.retired, false)
FROM jsonb_to_recordset(%(lines)s) AS given (code text, name text, retired boolean)
LEFT JOIN domain AS stored USING (code)
ON CONFLICT ON CONSTRAINT domain_code_unique DO UPDATE SET name = excluded.name, retired = excluded.retired
WHERE (domain.name, domain.retired) IS DISTINCT FROM (excluded.name, excluded.retired)
RETURNING old.domain_id IS NULL AS created

-- name: save_phase
INSERT INTO contract_phase (domain_id, code, description, retired)
SELECT %(domain_id)s, given.code, given.description, coalesce(given.retired, stored.retired, false)
FROM jsonb_to_recordset(%(lines)s) AS given (code text, description text, retired boolean)
LEFT JOIN contract_phase AS stored ON stored.domain_id = %(domain_id)s AND stored.code = given.code
ON CONFLICT ON CONSTRAINT contract_phase_code_unique DO UPDATE
SET description = excluded.description, retired = excluded.retired
WHERE (contract_phase.description, contract_phase.retired) IS DISTINCT FROM (excluded.description, excluded.retired)
RETURNING old.phase_id IS NULL AS created

-- name: save_status
-- In the order of the flag, so that the old initial status gives it up before another takes it on.
INSERT INTO contract_status AS s
    (domain_id, phase_id, code, description, initial, definitive, churn, automatic_after_days, retired)
SELECT %(domain_id)s, phase.phase_id, given.code, given.description, given.initial, given.definitive, given.churn,
       given.automatic_after_days, coalesce(given.retired, stored.retired, false)
FROM jsonb_to_recordset(%(lines)s) AS given (code text, phase text, description text, initial boolean,
         definitive boolean, churn boolean, automatic_after_days integer, retired boolean)
JOIN contract_phase AS phase ON phase.domain_id = %(domain_id)s AND phase.code = given.phase
LEFT JOIN contract_status AS stored ON stored.domain_id = %(domain_id)s AND stored.code = given.code
ORDER BY given.initial
ON CONFLICT ON CONSTRAINT contract_status_code_unique DO UPDATE
SET phase_id = excluded.phase_id, description = excluded.description, initial = excluded.initial,
    definitive = excluded.definitive, churn = excluded.churn, automatic_after_days = excluded.automatic_after_days,
    retired = excluded.retired
WHERE (s.phase_id, s.description, s.initial, s.definitive, s.churn, s.automatic_after_days, s.retired)
      IS DISTINCT FROM (excluded.phase_id, excluded.description, excluded.initial, excluded.definitive,
                        excluded.churn, excluded.automatic_after_days, excluded.retired)
RETURNING old.status_id IS NULL AS created

-- name: save_origin
INSERT INTO origin (domain_id, code, name, active)
SELECT %(domain_id)s, given.code, given.name, coalesce(given.active, stored.active, true)
FROM jsonb_to_recordset(%(lines)s) AS given (code text, name text, active boolean)
LEFT JOIN origin AS stored ON stored.domain_id = %(domain_id)s AND stored.code = given.code
ON CONFLICT ON CONSTRAINT origin_code_unique DO UPDATE SET name = excluded.name, active = excluded.active
WHERE (origin.name, origin.active) IS DISTINCT FROM (excluded.name, excluded.active)
RETURNING old.origin_id IS NULL AS created

-- name: save_subscription
INSERT INTO subscription AS s (domain_id, list_id, name, type, display_sequence, disabled)
SELECT %(domain_id)s, given.list_id, given.name, given.type, given.display_sequence,
       coalesce(given.disabled, stored.disabled, false)
FROM jsonb_to_recordset(%(lines)s)
    AS given (list_id text, name text, type text, display_sequence integer, disabled boolean)
LEFT JOIN subscription AS stored ON stored.domain_id = %(domain_id)s AND stored.list_id = given.list_id
ON CONFLICT ON CONSTRAINT subscription_list_id_unique DO UPDATE
SET name = excluded.name, type = excluded.type, display_sequence = excluded.display_sequence,
    disabled = excluded.disabled
WHERE (s.name, s.type, s.display_sequence, s.disabled)
      IS DISTINCT FROM (excluded.name, excluded.type, excluded.display_sequence, excluded.disabled)
RETURNING old.subscription_id IS NULL AS created

-- name: open_history
SELECT open_history('status_history', %(domain_id)s, array_agg(DISTINCT date_trunc('year', sign_up_date)::date))
FROM jsonb_to_recordset(%(lines)s) AS given (sign_up_date date)

-- name: save_contracts
-- A new contract gets the domain's initial status at its sign-up. Only contracts of a reference file are recorded as
-- changes; those of import batches are in the ledger.
WITH written AS (
    INSERT INTO contract (domain_id, form_id, sign_up_date, status_id, date_result)
    SELECT %(domain_id)s, form_id, sign_up_date, initial.status_id,
           CASE WHEN initial.status_id IS NOT NULL THEN sign_up_date END
    FROM jsonb_to_recordset(%(lines)s) AS given (form_id text, sign_up_date date)
    LEFT JOIN contract_status AS initial ON initial.domain_id = %(domain_id)s AND initial.initial
    ORDER BY form_id
    ON CONFLICT ON CONSTRAINT contract_form_id_unique DO UPDATE SET sign_up_date = excluded.sign_up_date
    WHERE contract.sign_up_date <> excluded.sign_up_date
    RETURNING new.contract_id, new.form_id, new.status_id, old.sign_up_date AS before, new.sign_up_date AS after,
              old.contract_id IS NULL AS created
),
entered AS (
    INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
    SELECT contract_id, %(domain_id)s, status_id, after, 'initial'
    FROM written WHERE created AND status_id IS NOT NULL
    ORDER BY contract_id
),
recorded AS (
    INSERT INTO reference_change (by, file, domain_id, sort, code, before, after)
    SELECT coalesce(nullif(current_setting('rowledger.by'), ''), session_user),
           nullif(current_setting('rowledger.file'), ''), %(domain_id)s, 'contract', form_id,
           CASE WHEN NOT created THEN jsonb_build_object('sign_up_date', before) END,
           jsonb_build_object('sign_up_date', after)
    FROM written
    ORDER BY form_id
)
SELECT created FROM written

-- name: save_values
INSERT INTO reference_value (list_name, value)
SELECT list_name, value
FROM jsonb_to_recordset(%(lines)s) AS given (list_name text, value text)
ON CONFLICT ON CONSTRAINT reference_value_unique DO NOTHING
RETURNING true AS created

-- name: remove_values
DELETE FROM reference_value WHERE list_name = %(list_name)s AND value = ANY(%(values)s) RETURNING value

-- name: unusable_phases
-- Statuses whose phase does not exist, or is retired while they are in use.
SELECT given.code, given.phase, phase.retired
FROM jsonb_to_recordset(%(lines)s) AS given (code text, phase text, retired boolean)
LEFT JOIN contract_phase AS phase ON phase.domain_id = %(domain_id)s AND phase.code = given.phase
LEFT JOIN contract_status AS stored ON stored.domain_id = %(domain_id)s AND stored.code = given.code
WHERE phase.phase_id IS NULL OR phase.retired AND NOT coalesce(given.retired, stored.retired, false)
ORDER BY given.code

-- name: other_initial
-- The initial status that the domain has, if it keeps the flag while another would take it on.
SELECT stored.code AS has, given.code AS asked
FROM jsonb_to_recordset(%(lines)s) AS given (code text, initial boolean)
JOIN contract_status AS stored ON stored.domain_id = %(domain_id)s AND stored.initial
WHERE given.initial
  AND NOT EXISTS (SELECT FROM jsonb_to_recordset(%(lines)s) AS named (code text) WHERE named.code = stored.code)

-- name: phases_in_use
-- Phases that would be retired while statuses in use belong to them.
SELECT given.code, string_agg(status.code, ', ' ORDER BY status.code) AS statuses
FROM jsonb_to_recordset(%(lines)s) AS given (code text, retired boolean)
JOIN contract_phase AS phase ON phase.domain_id = %(domain_id)s AND phase.code = given.code
JOIN contract_status AS status ON status.phase_id = phase.phase_id AND NOT status.retired
WHERE given.retired
GROUP BY given.code
ORDER BY given.code

-- name: value_lists
-- Named lists, and those that every domain has of its own: its active origins, its enabled and all its mailing lists.
SELECT list_name, value FROM reference_value WHERE list_name = ANY(%(names)s)
UNION ALL
SELECT '@origins', code FROM origin WHERE domain_id = %(domain_id)s AND active
UNION ALL
SELECT '@subscriptions', list_id FROM subscription WHERE domain_id = %(domain_id)s AND NOT disabled
UNION ALL
SELECT '@lists', list_id FROM subscription WHERE domain_id = %(domain_id)s
ORDER BY list_name, value

-- name: all_values
SELECT list_name, value FROM reference_value ORDER BY list_name, value

-- name: changes
SELECT change_id, changed_at, by, file, domain.code AS domain, sort, reference_change.code, before, after
FROM reference_change LEFT JOIN domain USING (domain_id)
WHERE coalesce(domain.code = %(domain)s, %(domain)s IS NULL) AND coalesce(sort = %(sort)s, true)
  AND coalesce(reference_change.code = %(code)s, true) AND coalesce(change_id < %(before)s, true)
ORDER BY change_id DESC
LIMIT %(limit)s

-- name: domain
INSERT INTO domain (code, name) VALUES (%(code)s, %(name)s)
ON CONFLICT ON CONSTRAINT domain_code_unique DO UPDATE SET name = excluded.name
RETURNING domain_id

-- name: phase_codes
SELECT code FROM contract_phase WHERE domain_id = %(domain_id)s

-- name: phases
INSERT INTO contract_phase (domain_id, code, description)
SELECT %(domain_id)s, code, description FROM (VALUES VALUES_HERE) AS given (code, description)
ON CONFLICT ON CONSTRAINT contract_phase_code_unique DO UPDATE SET description = excluded.description

-- name: statuses
INSERT INTO contract_status (domain_id, phase_id, code, description, initial, definitive, churn, automatic_after_days)
SELECT %(domain_id)s, phase_id, given.code, given.description, initial, definitive, churn, days::integer
FROM (VALUES VALUES_HERE) AS given (code, phase, description, initial, definitive, churn, days)
JOIN contract_phase ON contract_phase.domain_id = %(domain_id)s AND contract_phase.code = given.phase
ON CONFLICT ON CONSTRAINT contract_status_code_unique DO UPDATE
SET phase_id = excluded.phase_id, description = excluded.description, initial = excluded.initial,
    definitive = excluded.definitive, churn = excluded.churn, automatic_after_days = excluded.automatic_after_days

-- name: contracts
INSERT INTO contract (domain_id, form_id, sign_up_date)
SELECT %(domain_id)s, form_id, sign_up_date FROM (VALUES VALUES_HERE) AS given (form_id, sign_up_date)
ON CONFLICT ON CONSTRAINT contract_form_id_unique DO UPDATE SET sign_up_date = excluded.sign_up_date

-- name: initial_history
-- A new contract gets the domain's initial status at its sign-up.
INSERT INTO status_history (contract_id, status_id, date_result, cause)
SELECT contract_id, initial.status_id, sign_up_date, 'initial'
FROM contract
JOIN contract_status AS initial ON initial.domain_id = contract.domain_id AND initial.initial
WHERE contract.domain_id = %(domain_id)s AND contract.status_id IS NULL

-- name: initial_status
UPDATE contract
SET status_id = initial.status_id, date_result = sign_up_date
FROM contract_status AS initial
WHERE contract.domain_id = %(domain_id)s AND contract.status_id IS NULL
  AND initial.domain_id = contract.domain_id AND initial.initial

-- name: origins
INSERT INTO origin (domain_id, code, name, active)
SELECT %(domain_id)s, code, name, active FROM (VALUES VALUES_HERE) AS given (code, name, active)
ON CONFLICT ON CONSTRAINT origin_code_unique DO UPDATE SET name = excluded.name, active = excluded.active

-- name: subscriptions
INSERT INTO subscription (domain_id, list_id, name, type, display_sequence, disabled)
SELECT %(domain_id)s, list_id, name, type, display_sequence, disabled
FROM (VALUES VALUES_HERE) AS given (list_id, name, type, display_sequence, disabled)
ON CONFLICT ON CONSTRAINT subscription_list_id_unique DO UPDATE
SET name = excluded.name, type = excluded.type, display_sequence = excluded.display_sequence, disabled = excluded.disabled

-- name: values
INSERT INTO reference_value (list_name, value)
SELECT list_name, value FROM (VALUES VALUES_HERE) AS given (list_name, value)
ON CONFLICT ON CONSTRAINT reference_value_unique DO NOTHING

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

-- name: contract
SELECT contract_id FROM contract WHERE domain_id = %(domain_id)s AND form_id = %(form_id)s

-- name: status_as_of
SELECT status.code, status.description, phase.code AS phase, phase.description AS phase_description,
       definitive, churn, date_result, recorded_at, cause, seqno, record_no
FROM status_history
JOIN contract_status AS status USING (status_id)
JOIN contract_phase AS phase USING (phase_id)
WHERE status_history.domain_id = %(domain_id)s AND contract_id = %(contract_id)s
  AND (%(on)s::date IS NULL OR date_result <= %(on)s)
  AND (%(known_at)s::timestamptz IS NULL OR recorded_at <= %(known_at)s)
  AND (withdrawn_at IS NULL OR withdrawn_at > %(known_at)s)
ORDER BY date_result DESC, seqno DESC NULLS LAST, record_no DESC, history_id DESC
LIMIT 1

-- name: kept
-- Where what is kept of the domain's histories begins and since when, and whether there was more of this one.
SELECT first_day, since, (
    SELECT date_result FROM status_history
    WHERE domain_id = %(domain_id)s AND contract_id = %(contract_id)s AND had IS NOT NULL) AS begins
FROM history_kept WHERE history = 'status_history' AND domain_id = %(domain_id)s

-- name: had
-- The statuses that a contract had had by the first entry that is kept, if there were more.
SELECT ARRAY(SELECT code FROM contract_status WHERE status_id = ANY(had) ORDER BY code) AS codes
FROM status_history
WHERE domain_id = %(domain_id)s AND contract_id = %(contract_id)s AND had IS NOT NULL

-- name: profile
SELECT contract_id, domain.domain_id, domain.code AS domain, form_id, sign_up_date, contact_id, contact.external_id AS contact,
       nullif(concat_ws(' ', first_name, last_name), '') AS contact_name
FROM contract JOIN domain USING (domain_id) LEFT JOIN contact USING (contact_id)
WHERE contract_id = %(contract_id)s

-- name: history
SELECT status.code, status.description, phase.code AS phase, phase.description AS phase_description,
       status.definitive, status.churn, date_result, recorded_at, cause, seqno, record_no,
       previous.code AS previous_code, file_name, uploaded_by
FROM status_chain
JOIN contract_status AS status USING (status_id)
JOIN contract_phase AS phase USING (phase_id)
LEFT JOIN contract_status AS previous ON previous.status_id = previous_status_id
LEFT JOIN import_batch USING (seqno)
WHERE status_chain.domain_id = %(domain_id)s AND contract_id = %(contract_id)s
ORDER BY date_result, seqno NULLS FIRST, record_no NULLS FIRST, history_id

-- name: withdrawn
SELECT status.code, status.description, phase.code AS phase, phase.description AS phase_description,
       status.definitive, status.churn, date_result, recorded_at, cause, seqno, record_no, withdrawn_at, why, asked_by
FROM status_history
JOIN contract_status AS status USING (status_id)
JOIN contract_phase AS phase USING (phase_id)
JOIN import_batch_roll_back USING (seqno)
WHERE status_history.domain_id = %(domain_id)s AND contract_id = %(contract_id)s AND withdrawn_at IS NOT NULL
ORDER BY date_result, seqno, record_no

-- name: touches
SELECT seqno, record_no, outcome, before, r.recorded_at, file_name, uploaded_by, undone.recorded_at AS rolled_back_at
FROM import_record AS r
JOIN import_batch USING (seqno, domain_id)
LEFT JOIN LATERAL (
    SELECT recorded_at FROM roll_back_record AS u
    WHERE (u.seqno, u.record_no) = (r.seqno, r.record_no) AND result = 'restored'
) AS undone ON true
WHERE r.target_id = %(contract_id)s AND domain_id = %(domain_id)s AND kind = 'contract' AND outcome IN ('created', 'updated')
ORDER BY r.recorded_at, seqno, record_no

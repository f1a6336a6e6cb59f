-- name: contract
SELECT contract_id
FROM domain LEFT JOIN contract ON contract.domain_id = domain.domain_id AND form_id = %(form_id)s
WHERE domain.code = %(domain)s

-- name: status_as_of
SELECT status.code, status.description, phase.code AS phase, phase.description AS phase_description,
       definitive, churn, date_result, recorded_at, cause, seqno, record_no
FROM status_history
JOIN contract_status AS status USING (status_id)
JOIN contract_phase AS phase USING (phase_id)
WHERE contract_id = %(contract_id)s
  AND (%(on)s::date IS NULL OR date_result <= %(on)s)
  AND (%(known_at)s::timestamptz IS NULL OR recorded_at <= %(known_at)s)
ORDER BY date_result DESC, seqno DESC NULLS LAST, record_no DESC, history_id DESC
LIMIT 1

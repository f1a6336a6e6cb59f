-- name: contact
-- By external id; if nobody has that, by email.
SELECT 1 AS rank, contact.* FROM contact
WHERE domain_id = %(domain_id)s AND external_id = %(key)s
UNION ALL
SELECT 2, contact.* FROM contact
WHERE domain_id = %(domain_id)s AND lower(email) = lower(%(key)s COLLATE "C")
ORDER BY rank
LIMIT 1

-- name: contact_by_id
SELECT domain.code AS domain, contact.* FROM contact JOIN domain USING (domain_id) WHERE contact_id = %(contact_id)s

-- name: contracts
SELECT contract_id, form_id, sign_up_date, status.code AS status, status.description, phase.code AS phase, date_result
FROM contract
LEFT JOIN contract_status AS status USING (status_id)
LEFT JOIN contract_phase AS phase USING (phase_id)
WHERE contact_id = %(contact_id)s
ORDER BY sign_up_date DESC, form_id
LIMIT %(limit)s

-- name: origins
SELECT code, name, active, row_number() OVER (ORDER BY entry_id) = 1 AS first,
       added_at, seqno, record_no, file_name, uploaded_by
FROM contact_origin JOIN origin USING (origin_id) JOIN import_batch USING (seqno)
WHERE contact_id = %(contact_id)s
ORDER BY entry_id

-- name: subscriptions
SELECT list_id, name, type, disabled, opted_in, changed_at
FROM contact_subscription JOIN subscription USING (subscription_id)
WHERE contact_id = %(contact_id)s
ORDER BY display_sequence, list_id

-- name: subscription_history
-- Who is in no batch was opted in or out by hand.
SELECT recorded_at, list_id, name, type, opted_in, seqno, record_no, file_name, uploaded_by, withdrawn_at
FROM subscription_history AS h JOIN subscription USING (subscription_id) LEFT JOIN import_batch USING (seqno)
WHERE h.domain_id = %(domain_id)s AND contact_id = %(contact_id)s
ORDER BY history_id DESC
LIMIT %(limit)s

-- name: records
-- The newest records about a contact, each with the fields that it changed as they were before it, and its links. A
-- roll back has kept what it took away.
SELECT r.recorded_at, seqno, record_no, outcome, before, reasons, r.warnings, file_name, uploaded_by, uploaded_at,
       undone.recorded_at AS rolled_back_at, undone.removed,
       ARRAY(SELECT code FROM contact_origin AS added JOIN origin USING (origin_id)
             WHERE added.contact_id = target_id AND (added.seqno, added.record_no) = (r.seqno, r.record_no)
             ORDER BY entry_id) AS origins_added,
       ARRAY(SELECT list_id FROM subscription_history AS h JOIN subscription USING (subscription_id)
             WHERE h.domain_id = %(domain_id)s AND h.contact_id = target_id
               AND (h.seqno, h.record_no) = (r.seqno, r.record_no) AND opted_in
             ORDER BY display_sequence, list_id) AS opted_in,
       ARRAY(SELECT list_id FROM subscription_history AS h JOIN subscription USING (subscription_id)
             WHERE h.domain_id = %(domain_id)s AND h.contact_id = target_id
               AND (h.seqno, h.record_no) = (r.seqno, r.record_no) AND NOT opted_in
             ORDER BY display_sequence, list_id) AS opted_out
FROM import_record AS r JOIN import_batch USING (seqno, domain_id)
LEFT JOIN LATERAL (
    SELECT recorded_at, removed FROM roll_back_record AS u
    WHERE (u.seqno, u.record_no) = (r.seqno, r.record_no) AND result = 'restored'
) AS undone ON true
WHERE target_id = %(contact_id)s AND domain_id = %(domain_id)s AND kind = 'contact'
ORDER BY r.recorded_at DESC, seqno DESC, record_no DESC
LIMIT %(limit)s

-- name: kept
SELECT first_day FROM history_kept WHERE history = 'subscription_history' AND domain_id = %(domain_id)s

-- name: totals
SELECT (SELECT count(*) FROM subscription_history
        WHERE domain_id = %(domain_id)s AND contact_id = %(contact_id)s) AS subscription_history,
       (SELECT count(*) FROM import_record JOIN import_batch USING (seqno, domain_id)
        WHERE target_id = %(contact_id)s AND domain_id = %(domain_id)s AND kind = 'contact') AS records,
       (SELECT count(*) FROM contract WHERE contact_id = %(contact_id)s) AS contracts

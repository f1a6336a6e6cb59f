CREATE TEMPORARY TABLE lines (
    record_no integer GENERATED ALWAYS AS IDENTITY, form_id text, date_result text, code text, agent text, remark text) ON COMMIT DROP;
-- then
COPY lines (form_id, date_result, code, agent, remark) FROM STDIN (FORMAT csv, DELIMITER ';')
-- then
INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause, seqno, record_no)
SELECT contract_id, 1, contract_status.status_id, to_date(lines.date_result, 'DD-MM-YYYY'), 'import', %(seqno)s, lines.record_no
FROM lines
JOIN contract ON contract.domain_id = 1 AND contract.form_id = lines.form_id
JOIN contract_status ON contract_status.domain_id = 1 AND contract_status.code = lines.code
ON CONFLICT ON CONSTRAINT status_history_entry_unique DO NOTHING;
UPDATE contract
SET status_id = h.status_id, date_result = h.date_result, seqno = h.seqno, record_no = h.record_no
FROM status_history AS h
WHERE h.seqno = %(seqno)s AND h.contract_id = contract.contract_id;
INSERT INTO import_record (seqno, domain_id, record_no, outcome, target_id)
SELECT %(seqno)s, 1, lines.record_no, CASE WHEN h.history_id IS NULL THEN 'unchanged' ELSE 'updated' END, h.contract_id
FROM lines LEFT JOIN status_history AS h ON h.seqno = %(seqno)s AND h.record_no = lines.record_no;

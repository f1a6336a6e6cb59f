-- name: merge
WITH chunk AS (
    SELECT record_no, warnings, form_id, date_result, result_code
    FROM {staging}
    WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s
),
found AS (
    SELECT chunk.*, contract.contract_id, status.status_id, status.definitive,
           contract.date_result AS current_date_result, current_status.code AS current_code,
           current_status.definitive AS current_definitive,
           coalesce(history.entered, false) AS in_history,
           row_number() OVER (PARTITION BY chunk.form_id, chunk.date_result, result_code
                              ORDER BY chunk.record_no) > 1 AS repeated
    FROM chunk
    -- LIMIT keeps the planner at one index look-up per record, whatever it believes about the size of the tables.
    LEFT JOIN LATERAL (
        SELECT contract_id, status_id, date_result
        FROM contract WHERE domain_id = %(domain_id)s AND form_id = chunk.form_id LIMIT 1
    ) AS contract ON true
    LEFT JOIN contract_status AS status
        ON status.domain_id = %(domain_id)s AND status.code = chunk.result_code
    LEFT JOIN contract_status AS current_status ON current_status.status_id = contract.status_id
    LEFT JOIN LATERAL (
        SELECT true AS entered
        FROM status_history AS h
        WHERE h.contract_id = contract.contract_id AND h.date_result = chunk.date_result
          AND h.status_id = status.status_id
        LIMIT 1
    ) AS history ON true
),
-- Rules that look at one record and today's database; rule is null for what may change a status.
judged AS (
    SELECT *,
        CASE
            WHEN contract_id IS NULL THEN 'unknown_contract'
            WHEN status_id IS NULL THEN 'unknown_status'
            WHEN date_result > current_date AND NOT %(future_allowed)s THEN 'future_date'
            WHEN in_history THEN 'in_history'
            WHEN repeated THEN 'repeated'
            WHEN date_result < current_date_result THEN 'historic'
        END AS rule
    FROM found
),
-- What may change a status does so in the order of dates, until one of them is definitive.
in_order AS (
    SELECT *,
        coalesce(current_definitive, false) OR coalesce(bool_or(definitive) OVER before, false) AS too_late,
        coalesce(last_value(result_code) OVER before, current_code) AS code_before
    FROM judged
    WHERE rule IS NULL
    WINDOW before AS (PARTITION BY contract_id ORDER BY date_result, record_no
                      ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
),
decided AS (
    SELECT record_no, warnings, form_id, date_result, result_code, contract_id, status_id,
           rule, NULL AS code_before
    FROM judged WHERE rule IS NOT NULL
    UNION ALL
    SELECT record_no, warnings, form_id, date_result, result_code, contract_id, status_id,
           CASE WHEN too_late THEN 'definitive_status' END, code_before
    FROM in_order
),
entered AS (
    INSERT INTO status_history (contract_id, status_id, date_result, cause, seqno, record_no)
    SELECT contract_id, status_id, date_result, 'import', %(seqno)s, record_no
    FROM decided
    WHERE rule IS NULL OR rule = 'historic'
    ORDER BY contract_id, date_result, record_no
),
moved AS (
    UPDATE contract
    SET status_id = last.status_id, date_result = last.date_result, seqno = %(seqno)s, record_no = last.record_no
    FROM (
        SELECT DISTINCT ON (contract_id) contract_id, status_id, date_result, record_no
        FROM decided
        WHERE rule IS NULL
        ORDER BY contract_id, date_result DESC, record_no DESC
    ) AS last
    WHERE contract.contract_id = last.contract_id
),
written AS (
    INSERT INTO import_record (seqno, record_no, outcome, target_id, warnings, reasons)
    SELECT %(seqno)s, record_no,
        CASE
            WHEN rule IS NULL THEN 'updated'
            WHEN rule = 'historic' THEN 'historic'
            WHEN rule IN ('in_history', 'repeated') THEN 'unchanged'
            WHEN rule = 'unknown_contract' THEN %(unknown_contract)s
            WHEN rule = 'unknown_status' THEN %(unknown_status)s
            ELSE 'rejected'
        END,
        contract_id,
        CASE WHEN rule = 'repeated' THEN coalesce(warnings, '[]') || jsonb_build_array(jsonb_build_object(
            'rule', 'duplicate_in_file', 'column', NULL, 'value', NULL,
            'message', 'The file says the same about this contract in an earlier record.'))
        ELSE warnings END,
        CASE rule
            WHEN 'unknown_contract' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(form_id_column)s::text, 'value', form_id,
                'message', format('There is no contract "%%s" in domain %%s.', form_id, %(domain)s::text)))
            WHEN 'unknown_status' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(result_code_column)s::text, 'value', result_code,
                'message', format('There is no result code "%%s" in domain %%s.', result_code, %(domain)s::text)))
            WHEN 'future_date' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(date_result_column)s::text,
                'value', to_char(date_result, %(date_format)s),
                'message', format('%%s %%s lies in the future.', %(date_result_column)s::text,
                                  to_char(date_result, %(date_format)s))))
            WHEN 'definitive_status' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(result_code_column)s::text, 'value', result_code,
                'message', format('Contract "%%s" is at the definitive status "%%s", which cannot be overwritten.',
                                  form_id, code_before)))
        END
    FROM decided
    ORDER BY record_no
    RETURNING outcome
)
SELECT outcome, count(*) AS records FROM written GROUP BY outcome

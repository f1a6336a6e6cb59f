-- name: merge
WITH chunk AS (
    {chunk}
),
found AS (
    SELECT chunk.*, contract.contract_id, status.definitive, status.retired,
           CASE WHEN NOT status.retired THEN status.status_id END AS status_id,
           contract.date_result AS current_date_result, contract.seqno AS current_seqno,
           contract.record_no AS current_record_no, current_status.code AS current_code,
           coalesce(current_status.definitive, false) AS current_definitive,
           coalesce(history.entered, false) AS in_history, first.date_result AS kept_from,
           (chunk.date_result, %(seqno)s::bigint, chunk.record_no)
               < (first.date_result, coalesce(first.seqno, 0), coalesce(first.record_no, 0)) AS before_history,
           first_value(chunk.record_no) OVER (PARTITION BY chunk.form_id, chunk.date_result, result_code
                                              ORDER BY chunk.record_no) AS first_no
    FROM chunk
    -- LIMIT keeps the planner at one index look-up per record, whatever it believes about the size of the tables.
    LEFT JOIN LATERAL (
        SELECT contract_id, status_id, date_result, seqno, record_no
        FROM contract WHERE domain_id = %(domain_id)s AND form_id = chunk.form_id LIMIT 1
    ) AS contract ON true
    LEFT JOIN contract_status AS status
        ON status.domain_id = %(domain_id)s AND status.code = chunk.result_code
    LEFT JOIN contract_status AS current_status ON current_status.status_id = contract.status_id
    LEFT JOIN LATERAL (
        SELECT true AS entered
        FROM status_history AS h
        WHERE h.domain_id = %(domain_id)s AND h.contract_id = contract.contract_id AND h.date_result = chunk.date_result
          AND h.status_id = status.status_id AND h.withdrawn_at IS NULL
        LIMIT 1
    ) AS history ON true
    -- The first entry that is kept of a history that begins before what is kept of all.
    LEFT JOIN LATERAL (
        SELECT h.date_result, h.seqno, h.record_no
        FROM status_history AS h
        WHERE h.domain_id = %(domain_id)s AND h.contract_id = contract.contract_id AND h.had IS NOT NULL
          AND h.date_result < %(kept_from)s::date AND chunk.date_result < %(kept_from)s::date
        LIMIT 1
    ) AS first ON true
),
-- Rules that look at one record and today's database; rule is null for what comes after the current status.
judged AS (
    SELECT *, record_no > first_no AS repeated,
        CASE
            WHEN contract_id IS NULL THEN 'unknown_contract'
            WHEN status_id IS NULL THEN 'unknown_status'
            WHEN date_result > current_date AND NOT %(future_allowed)s THEN 'future_date'
            WHEN in_history THEN 'in_history'
            WHEN before_history THEN 'before_history'
            -- What has no batch comes before the imports of its date.
            WHEN (date_result, %(seqno)s::bigint, first_no)
                 < (current_date_result, coalesce(current_seqno, 0), coalesce(current_record_no, 0))
            THEN CASE WHEN record_no > first_no THEN 'repeated' ELSE 'historic' END
        END AS rule
    FROM found
),
-- What comes after the current status changes it in the order of dates and numbers, until one of them is definitive:
-- ended_by is the first definitive one before a record, written so that texts compare as date and number do.
in_order AS (
    SELECT *,
        min(CASE WHEN definitive THEN
                to_char(date_result, 'YYYYMMDD') || to_char(record_no, 'FM0000000000') || result_code
            END COLLATE "C") OVER (PARTITION BY contract_id ORDER BY date_result, record_no
                                   ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ended_by
    FROM judged
    WHERE rule IS NULL
),
decided AS (
    SELECT record_no, warnings, form_id, date_result, result_code, contract_id, status_id, retired, repeated,
           NULL AS definitive_code, kept_from, rule
    FROM judged
    WHERE rule IS NOT NULL
    UNION ALL
    SELECT record_no, warnings, form_id, date_result, result_code, contract_id, status_id, retired, repeated,
           CASE WHEN current_definitive THEN current_code ELSE substr(ended_by, 19) END, kept_from,
           CASE
               WHEN current_definitive THEN 'definitive_status'
               -- A repeat of what is refused is refused; a repeat of what is entered is not.
               WHEN ended_by < to_char(date_result, 'YYYYMMDD') || to_char(first_no, 'FM0000000000')
               THEN 'definitive_status'
               WHEN repeated THEN 'repeated'
           END
    FROM in_order
),
entered AS (
    INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause, seqno, record_no)
    SELECT contract_id, %(domain_id)s, status_id, date_result, 'import', %(seqno)s, record_no
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
explained AS (
    SELECT record_no, contract_id, form_id, date_result, result_code,
        CASE
            WHEN rule IS NULL THEN 'updated'
            WHEN rule = 'historic' THEN 'historic'
            WHEN rule IN ('in_history', 'repeated') THEN 'unchanged'
            WHEN rule = 'unknown_contract' THEN %(unknown_contract)s
            WHEN rule = 'unknown_status' THEN %(unknown_status)s
            WHEN rule = 'before_history' THEN 'ignored'
            ELSE 'rejected'
        END AS outcome,
        CASE rule WHEN 'unknown_contract' THEN 'contract' WHEN 'unknown_status' THEN 'status' END AS waits_for,
        CASE WHEN repeated AND NOT coalesce(warnings @> '[{{"rule": "duplicate_in_file"}}]', false)
             THEN coalesce(warnings, '[]') || jsonb_build_array(jsonb_build_object(
                'rule', 'duplicate_in_file', 'column', NULL, 'value', NULL,
                'message', 'The file says the same about this contract in an earlier record.'))
        ELSE warnings END AS warnings,
        CASE
            WHEN rule IN ('unknown_contract', 'unknown_status', 'future_date') THEN
                CASE WHEN contract_id IS NULL THEN jsonb_build_array(jsonb_build_object(
                    'rule', 'unknown_contract', 'column', %(form_id_column)s::text, 'value', form_id,
                    'message', format('There is no contract "%%s" in domain %%s.', form_id, %(domain)s::text)))
                ELSE '[]' END
                || CASE WHEN status_id IS NULL THEN jsonb_build_array(jsonb_build_object(
                    'rule', 'unknown_status', 'column', %(result_code_column)s::text, 'value', result_code,
                    'message', format(CASE WHEN retired THEN 'The result code "%%s" of domain %%s is retired.'
                                           ELSE 'There is no result code "%%s" in domain %%s.' END,
                                      result_code, %(domain)s::text)))
                ELSE '[]' END
                || CASE WHEN date_result > current_date AND NOT %(future_allowed)s THEN jsonb_build_array(jsonb_build_object(
                    'rule', 'future_date', 'column', %(date_result_column)s::text,
                    'value', to_char(date_result, %(date_format)s),
                    'message', format('%%s %%s lies in the future.', %(date_result_column)s::text,
                                      to_char(date_result, %(date_format)s))))
                ELSE '[]' END
            WHEN rule = 'definitive_status' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(result_code_column)s::text, 'value', result_code,
                'message', format('Contract "%%s" is at the definitive status "%%s", which cannot be overwritten.',
                                  form_id, definitive_code)))
            WHEN rule = 'before_history' THEN jsonb_build_array(jsonb_build_object(
                'rule', rule, 'column', %(date_result_column)s::text, 'value', to_char(date_result, %(date_format)s),
                'message', format('The history of contract "%%s" is not kept before %%s; nothing is entered there any more.',
                                  form_id, to_char(kept_from, %(date_format)s))))
        END AS reasons
    FROM decided
),
{written}
SELECT outcome, count(*) AS records FROM written GROUP BY outcome

-- name: open
-- There is a place in the history for what the chunk enters.
SELECT open_history('status_history', %(domain_id)s, array_agg(DISTINCT date_trunc('year', date_result)::date)), (
    SELECT first_day FROM history_kept WHERE history = 'status_history' AND domain_id = %(domain_id)s) AS kept_from
FROM ({chunk}) AS chunk

-- name: from_staging
SELECT record_no, warnings, form_id, date_result, result_code
FROM {staging}
WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND (%(upto)s::text IS NULL OR match_key <= %(upto)s)

-- name: to_ledger
written AS (
    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, warnings, reasons)
    SELECT %(seqno)s, record_no, %(domain_id)s, outcome, contract_id, warnings, reasons
    FROM explained
    ORDER BY record_no
    RETURNING outcome
)

-- name: park
parked AS (
    INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, warnings, waits_for, key)
    SELECT %(seqno)s, record_no, %(kind)s, %(domain_id)s, form_id,
           jsonb_build_object('form_id', form_id, 'date_result', date_result, 'result_code', result_code), warnings,
           waits_for, CASE waits_for WHEN 'contract' THEN form_id ELSE result_code END
    FROM explained
    WHERE outcome = 'parked'
)

-- name: from_parked
SELECT record_no, warnings, fields ->> 'form_id' AS form_id, (fields ->> 'date_result')::date AS date_result,
       fields ->> 'result_code' AS result_code
FROM ({due}) AS due
WHERE (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: to_parked
written AS (
    UPDATE parked_record
    SET outcome = explained.outcome, target_id = contract_id, warnings = explained.warnings,
        replayed_at = statement_timestamp(),
        reasons = explained.reasons, waits_for = coalesce(explained.waits_for, parked_record.waits_for),
        key = CASE explained.waits_for WHEN 'contract' THEN form_id WHEN 'status' THEN result_code ELSE key END
    FROM explained
    WHERE seqno = %(seqno)s AND parked_record.record_no = explained.record_no
    RETURNING explained.outcome
)

-- name: changes
-- What the records of a chunk changed: the entry before theirs in the history, and theirs.
SELECT r.record_no, form_id AS about, jsonb_build_object('status', previous.code) AS before,
       jsonb_build_object('status', status.code, 'date_result', entry.date_result) AS after
FROM {staging} AS staged
JOIN import_record AS r USING (record_no)
CROSS JOIN LATERAL (
    SELECT * FROM (SELECT * FROM status_chain WHERE domain_id = %(domain_id)s AND contract_id = target_id) AS chain
    WHERE chain.seqno = r.seqno AND chain.record_no = r.record_no
) AS entry
JOIN contract_status AS status ON status.status_id = entry.status_id
LEFT JOIN contract_status AS previous ON previous.status_id = entry.previous_status_id
WHERE r.seqno = %(seqno)s AND outcome IN ('updated', 'historic')
  AND (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: effects
-- What the records of a chunk entered in histories. Whose contract was given another status later, or confirmed, is
-- left: what counts is the order in which entries were made, not their dates.
SELECT r.record_no, r.target_id, r.outcome, form_id AS about,
       CASE
           WHEN now.contract_id IS NULL THEN 'gone'
           WHEN mine.history_id IS NULL OR mine.had IS NOT NULL THEN 'history_not_kept'
           ELSE coalesce(entered.reason, later.reason)
       END AS reason,
       CASE WHEN entered.reason IS NULL THEN later.seqno ELSE entered.seqno END AS later_seqno,
       CASE WHEN entered.reason IS NULL THEN later.record_no ELSE entered.record_no END AS later_record_no,
       entered.code AS detail,
       jsonb_build_object('fields', jsonb_build_object('status', status.code, 'date_result', mine.date_result)) AS removed,
       NULL::jsonb AS before, mine.history_id
FROM (
    SELECT * FROM ({records}) AS at_once WHERE record_no > %(after)s AND record_no <= %(upto)s
    UNION ALL
    SELECT * FROM ({replayed}) AS replayed WHERE record_no > %(after)s AND record_no <= %(upto)s
) AS told
LEFT JOIN LATERAL (SELECT contract_id, form_id FROM contract WHERE contract_id = told.target_id LIMIT 1) AS now ON true
LEFT JOIN LATERAL (
    SELECT history_id, status_id, date_result, recorded_at, had
    FROM status_history
    WHERE domain_id = %(domain_id)s AND contract_id = told.target_id AND (seqno, record_no) = (%(seqno)s, told.record_no) AND withdrawn_at IS NULL
    LIMIT 1
) AS mine ON true
LEFT JOIN contract_status AS status ON status.status_id = mine.status_id
CROSS JOIN LATERAL (
    SELECT told.record_no, told.target_id, told.outcome, coalesce(mine.recorded_at, told.recorded_at) AS recorded_at
) AS r
LEFT JOIN LATERAL (
    SELECT CASE cause WHEN 'timer' THEN 'timer' ELSE 'changed_later' END AS reason, seqno, record_no,
           (SELECT code FROM contract_status AS s WHERE s.status_id = h.status_id AND cause = 'timer') AS code
    FROM status_history AS h
    WHERE h.domain_id = %(domain_id)s AND h.contract_id = told.target_id AND h.history_id > mine.history_id AND h.withdrawn_at IS NULL
      AND h.seqno IS DISTINCT FROM %(seqno)s
    ORDER BY h.history_id DESC
    LIMIT 1
) AS entered ON true
LEFT JOIN LATERAL ({later}) AS later ON true

-- name: withdraw
UPDATE status_history SET withdrawn_at = statement_timestamp()
FROM effect
WHERE status_history.domain_id = %(domain_id)s AND contract_id = target_id
  AND status_history.history_id = effect.history_id AND reason IS NULL

-- name: move_back
-- A contract stands where the last entry that is left says.
UPDATE contract
SET status_id = last.status_id, date_result = last.date_result, seqno = last.seqno, record_no = last.record_no
FROM (SELECT DISTINCT target_id FROM effect WHERE reason IS NULL) AS touched
LEFT JOIN LATERAL (
    SELECT status_id, date_result, seqno, record_no
    FROM status_history
    WHERE domain_id = %(domain_id)s AND contract_id = touched.target_id AND withdrawn_at IS NULL
    ORDER BY date_result DESC, seqno DESC NULLS LAST, record_no DESC NULLS LAST, history_id DESC
    LIMIT 1
) AS last ON true
WHERE contract.contract_id = touched.target_id
  AND (contract.status_id, contract.date_result, contract.seqno, contract.record_no)
      IS DISTINCT FROM (last.status_id, last.date_result, last.seqno, last.record_no)

-- name: due
-- What the timers give up to a day that they have not given: one row per contract and status. Where an entry belongs in
-- the history decides, not when it is made: nothing for a contract that was at a definitive status then or had had the
-- status. Of two that are due, a definitive one ends the contract for the other, unless an entry lies between them.
SELECT domain_id, contract_id, status_id, due, previous_status_id
FROM (
    SELECT candidate.*, coalesce(lag(candidate.status_id) OVER since_last, last.status_id) AS previous_status_id,
           coalesce(bool_or(candidate.definitive) OVER (
               since_last ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS ended
    FROM (
        -- What the contract itself and the index of timer entries rule out never gets as far as the history: OFFSET
        -- keeps the planner from looking there first.
        SELECT contract.domain_id, contract.contract_id, given.status_id, given.code, given.definitive,
               sign_up_date + given.automatic_after_days AS due
        FROM contract
        JOIN domain ON domain.domain_id = contract.domain_id AND NOT domain.retired
        JOIN contract_status AS given
            ON given.domain_id = contract.domain_id AND given.automatic_after_days IS NOT NULL AND NOT given.retired
        LEFT JOIN contract_status AS current_status ON current_status.status_id = contract.status_id
        WHERE {which}
          AND sign_up_date + given.automatic_after_days <= {upto}
          AND (current_status.definitive AND date_result < sign_up_date + given.automatic_after_days) IS NOT TRUE
          AND {not_given}
        OFFSET 0
    ) AS candidate
    -- LIMIT keeps the planner at index look-ups, instead of the whole history.
    LEFT JOIN LATERAL (
        SELECT true AS found
        FROM status_history AS h
        WHERE h.domain_id = candidate.domain_id AND h.contract_id = candidate.contract_id
          AND (h.status_id = candidate.status_id AND h.date_result <= due AND h.withdrawn_at IS NULL
               -- What came before is not kept: it is as it was.
               OR h.had IS NOT NULL AND (candidate.status_id = ANY(h.had) OR h.date_result > due))
        LIMIT 1
    ) AS had ON true
    LEFT JOIN LATERAL (
        SELECT h.history_id, h.status_id, status.definitive
        FROM status_history AS h JOIN contract_status AS status USING (status_id)
        WHERE h.domain_id = candidate.domain_id AND h.contract_id = candidate.contract_id AND h.withdrawn_at IS NULL
          AND (h.date_result < due OR h.date_result = due AND h.seqno IS NULL)
        ORDER BY h.date_result DESC, h.seqno DESC NULLS LAST, h.record_no DESC, h.history_id DESC
        LIMIT 1
    ) AS last ON true
    WHERE had.found IS NULL AND last.definitive IS NOT TRUE
    WINDOW since_last AS (PARTITION BY candidate.contract_id, last.history_id ORDER BY due, candidate.code)
) AS due
WHERE NOT ended

-- name: not_given
NOT EXISTS (
    SELECT FROM status_history AS h
    WHERE h.domain_id = contract.domain_id AND h.contract_id = contract.contract_id
      AND h.status_id = given.status_id AND h.cause = 'timer')

-- name: not_given_of_few
-- LIMIT keeps the planner at index look-ups, also while it believes that no timer has given anything yet: it would read
-- all that they have given for each contract.
(SELECT true FROM status_history AS h
 WHERE h.domain_id = contract.domain_id AND h.contract_id = contract.contract_id
   AND h.status_id = given.status_id AND h.cause = 'timer'
 LIMIT 1) IS NULL

-- name: domains
SELECT domain_id, code FROM domain WHERE %(domain_id)s::integer IS NULL OR domain_id = %(domain_id)s ORDER BY code

-- name: find
CREATE TEMPORARY TABLE due_contract AS
SELECT DISTINCT domain_id, contract_id FROM ({due}) AS due

-- name: index
CREATE INDEX ON due_contract (domain_id, contract_id)

-- name: next
SELECT max(contract_id) AS contract_id
FROM (
    SELECT contract_id FROM due_contract
    WHERE domain_id = %(domain_id)s AND contract_id > %(after)s
    ORDER BY contract_id
    LIMIT %(size)s
) AS next_contracts

-- name: chunk
SELECT contract_id FROM due_contract
WHERE domain_id = %(domain_id)s AND contract_id > %(after)s AND contract_id <= %(upto)s

-- name: open
-- There is a place in the history for what falls due in the chunk.
SELECT open_history('status_history', %(domain_id)s,
                    array_agg(DISTINCT date_trunc('year', sign_up_date + automatic_after_days)::date))
FROM contract JOIN contract_status AS given USING (domain_id)
WHERE domain_id = %(domain_id)s AND contract_id IN ({chunk})
  AND automatic_after_days IS NOT NULL AND sign_up_date + automatic_after_days <= coalesce(%(day)s::date, current_date)

-- name: give
WITH due AS (
    {due}
),
entered AS (
    INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
    SELECT contract_id, due.domain_id, due.status_id, due, 'timer'
    FROM due JOIN contract_status USING (status_id)
    ORDER BY contract_id, due, code
    RETURNING history_id, contract_id, status_id, date_result
),
-- Of one date, what comes by itself stands in the order in which it came, and before what was imported.
moved AS (
    UPDATE contract
    SET status_id = last.status_id, date_result = last.date_result, seqno = NULL, record_no = NULL
    FROM (
        SELECT DISTINCT ON (contract_id) contract_id, status_id, date_result
        FROM entered
        ORDER BY contract_id, date_result DESC, history_id DESC
    ) AS last
    WHERE contract.contract_id = last.contract_id
      AND (contract.date_result IS NULL OR contract.date_result < last.date_result
           OR contract.date_result = last.date_result AND contract.seqno IS NULL)
    RETURNING contract.contract_id, contract.status_id
)
SELECT code, description, count(*) FILTER (WHERE NOT moves) AS contracts, count(*) FILTER (WHERE moves) AS current
FROM (SELECT status_id, false AS moves FROM entered UNION ALL SELECT status_id, true FROM moved) AS counted
JOIN contract_status USING (status_id)
GROUP BY code, description

-- name: forecast
-- What will be given, were nothing imported until then.
SELECT due, domain.code AS domain, form_id, previous.code AS previous_code, given.code, given.description,
       coalesce(contract.date_result > due OR contract.date_result = due AND contract.seqno IS NOT NULL, false) AS historic
FROM ({due}) AS due
JOIN contract USING (domain_id, contract_id)
JOIN domain USING (domain_id)
JOIN contract_status AS given ON given.status_id = due.status_id
LEFT JOIN contract_status AS previous ON previous.status_id = previous_status_id
ORDER BY due, domain.code, given.code, form_id

-- name: forecast_by_day
-- The same as numbers, by the day of the run that will give it: what is overdue is given by the next one.
SELECT greatest(due, current_date) AS given_on, domain.code AS domain, given.code, given.description,
       count(*) AS contracts
FROM ({due}) AS due
JOIN domain USING (domain_id)
JOIN contract_status AS given ON given.status_id = due.status_id
GROUP BY given_on, domain.code, given.code, given.description
ORDER BY given_on, domain.code, given.code

-- The histories in volumes, one of a domain and a year each: retention drops years and deletes no rows.
--
-- Of what comes before the years that are kept, a contract keeps its last entry and the statuses that it had had by then,
-- a contact with each list its last entry: what the current status, timers and roll backs go by.
SET LOCAL search_path = rowledger, pg_catalog;

DROP VIEW status_chain;
ALTER TABLE status_history RENAME TO status_history_in_one;
ALTER TABLE subscription_history RENAME TO subscription_history_in_one;

-- No foreign keys: to attach a volume would lock contracts and contacts for all imports. Who writes has the target before
-- him, who removes a target removes its history, and the check histories_have_their_target looks.
CREATE TABLE status_history (
    history_id bigint GENERATED ALWAYS AS IDENTITY,
    contract_id bigint NOT NULL,
    domain_id integer NOT NULL,
    status_id integer NOT NULL,
    date_result date NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    cause text NOT NULL CONSTRAINT status_history_cause CHECK (cause IN ('initial', 'import', 'timer')),
    seqno bigint,
    record_no integer,
    withdrawn_at timestamptz,
    had integer[],
    CONSTRAINT status_history_date_sane CHECK (date_result BETWEEN '1900-01-01' AND '2100-12-31'),
    CONSTRAINT status_history_provenance CHECK ((cause = 'import') = (seqno IS NOT NULL AND record_no IS NOT NULL)),
    CONSTRAINT status_history_withdrawn CHECK (withdrawn_at IS NULL OR cause = 'import'),
    CONSTRAINT status_history_had CHECK (had IS NULL OR withdrawn_at IS NULL)
) PARTITION BY LIST (domain_id);
COMMENT ON TABLE status_history IS
    'Append-only: every status a contract was given, when, why and by which record; withdrawn if its batch was rolled back. '
    'In volumes by domain and year of date_result.';
COMMENT ON COLUMN status_history.domain_id IS 'Of the contract.';
COMMENT ON COLUMN status_history.had IS
    'Only of a contract''s first entry, where those before it are not kept any more: the statuses that it had had by then.';

CREATE TABLE subscription_history (
    history_id bigint GENERATED ALWAYS AS IDENTITY,
    contact_id bigint NOT NULL,
    domain_id integer NOT NULL,
    subscription_id integer NOT NULL,
    opted_in boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    seqno bigint,
    record_no integer,
    withdrawn_at timestamptz,
    CONSTRAINT subscription_history_withdrawn CHECK (withdrawn_at IS NULL OR seqno IS NOT NULL)
) PARTITION BY LIST (domain_id);
COMMENT ON TABLE subscription_history IS
    'Append-only: who opted in or out of what, when, by which batch and record; withdrawn if the batch was rolled back. '
    'In volumes by domain and year of recorded_at.';
COMMENT ON COLUMN subscription_history.domain_id IS 'Of the contact.';

CREATE TABLE history_volume (
    history text NOT NULL CONSTRAINT history_volume_history CHECK (history IN ('status_history', 'subscription_history')),
    domain_id integer NOT NULL REFERENCES domain,
    first_day date NOT NULL,
    end_day date NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    removed_at timestamptz,
    CONSTRAINT history_volume_once PRIMARY KEY (history, domain_id, first_day, end_day),
    CONSTRAINT history_volume_span CHECK (first_day < end_day)
);
COMMENT ON TABLE history_volume IS
    'The volumes of the histories: the entries of a domain from first_day to before end_day, in the table that history_volume_table names.';
COMMENT ON COLUMN history_volume.removed_at IS
    'When its table was dropped; what goes on counting of its entries is in the volume from -infinity to the same day or a later one.';

CREATE FUNCTION history_volume_table(history text, domain_id integer, first_day date, end_day date) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT format('%s_%s_%s', history, domain_id,
                  CASE WHEN isfinite(first_day) THEN to_char(first_day, 'YYYY') ELSE to_char(end_day, '"before_"YYYY') END)
$$;

CREATE VIEW history_kept AS
SELECT history, domain_id, max(end_day) FILTER (WHERE NOT isfinite(first_day)) AS first_day, max(removed_at) AS since
FROM history_volume GROUP BY history, domain_id HAVING bool_or(removed_at IS NOT NULL);
COMMENT ON VIEW history_kept IS 'From which day on the histories of a domain are kept, and since when; without a row, all.';

-- An empty table of the shape of a history; attach_history_volume makes it a part of it.
CREATE FUNCTION make_history_volume(of_history text, of_domain integer, from_day date, before_day date) RETURNS void
LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    alike CONSTANT text := 'CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)';
BEGIN
    EXECUTE format(alike, history_volume_table(of_history, of_domain, from_day, before_day), of_history);
    INSERT INTO history_volume (history, domain_id, first_day, end_day) VALUES (of_history, of_domain, from_day, before_day);
END $$;

-- Attached, not created in place: that way nobody waits who reads or writes the history.
CREATE FUNCTION attach_history_volume(of_history text, of_domain integer, from_day date, before_day date) RETURNS void
LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    of_all CONSTANT text := of_history || '_' || of_domain;
    bound CONSTANT text := CASE of_history WHEN 'status_history' THEN '' ELSE ' 00:00:00+00' END;
BEGIN
    IF to_regclass(of_all) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (%I)',
                       of_all, of_history, CASE of_history WHEN 'status_history' THEN 'date_result' ELSE 'recorded_at' END);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%s)', of_history, of_all, of_domain);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%L)', of_all,
                   history_volume_table(of_history, of_domain, from_day, before_day),
                   CASE WHEN isfinite(from_day) THEN quote_literal(from_day || bound) ELSE 'MINVALUE' END, before_day || bound);
END $$;

-- Whoever is about to enter something: there is a place for entries of these days.
CREATE FUNCTION open_history(of_history text, of_domain integer, days date[]) RETURNS void
LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    missing record;
BEGIN
    -- Statements of their own: the second look sees what was committed while the lock was waited for.
    FOR look IN 1..2 LOOP
        FOR missing IN
            SELECT DISTINCT CASE WHEN day < '2000-01-01' THEN '-infinity' ELSE date_trunc('year', day)::date END AS first_day,
                   greatest(date_trunc('year', day)::date + interval '1 year', '2000-01-01')::date AS end_day
            FROM unnest(days || date '1900-01-01') AS day
            WHERE day IS NOT NULL
              AND NOT EXISTS (SELECT FROM history_volume AS v
                              WHERE history = of_history AND domain_id = of_domain AND removed_at IS NULL
                                AND day >= first_day AND day < end_day)
        LOOP
            EXIT WHEN look = 1;
            PERFORM make_history_volume(of_history, of_domain, missing.first_day, missing.end_day);
            PERFORM attach_history_volume(of_history, of_domain, missing.first_day, missing.end_day);
        END LOOP;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        IF look = 1 THEN
            PERFORM pg_advisory_xact_lock(hashtextextended('rowledger histories', of_domain));
        END IF;
    END LOOP;
END $$;

SELECT open_history('status_history', domain_id, array_agg(day))
FROM (SELECT domain_id, date_trunc('year', h.date_result)::date AS day FROM status_history_in_one AS h JOIN contract USING (contract_id)
      GROUP BY 1, 2) AS years
GROUP BY domain_id;
SELECT open_history('subscription_history', domain_id, array_agg(day))
FROM (SELECT domain_id, date_trunc('year', recorded_at AT TIME ZONE 'UTC')::date AS day
      FROM subscription_history_in_one JOIN contact USING (contact_id) GROUP BY 1, 2) AS years
GROUP BY domain_id;

INSERT INTO status_history (history_id, contract_id, domain_id, status_id, date_result, recorded_at, cause, seqno, record_no,
                            withdrawn_at)
OVERRIDING SYSTEM VALUE
SELECT history_id, contract_id, domain_id, h.status_id, h.date_result, recorded_at, cause, h.seqno, h.record_no, withdrawn_at
FROM status_history_in_one AS h JOIN contract USING (contract_id);
INSERT INTO subscription_history (history_id, contact_id, domain_id, subscription_id, opted_in, recorded_at, seqno, record_no,
                                  withdrawn_at)
OVERRIDING SYSTEM VALUE
SELECT history_id, contact_id, domain_id, subscription_id, opted_in, recorded_at, seqno, record_no, withdrawn_at
FROM subscription_history_in_one JOIN contact USING (contact_id);
SELECT setval(pg_get_serial_sequence('status_history', 'history_id'), max(history_id)) FROM status_history HAVING count(*) > 0;
SELECT setval(pg_get_serial_sequence('subscription_history', 'history_id'), max(history_id))
FROM subscription_history HAVING count(*) > 0;
DROP TABLE status_history_in_one, subscription_history_in_one;

-- Of the entries that count one of a kind. It also finds the history of a contract.
ALTER TABLE status_history ADD CONSTRAINT status_history_entry_unique
    UNIQUE NULLS NOT DISTINCT (contract_id, date_result, status_id, withdrawn_at, domain_id);
-- What makes a daily run quick: which contracts have been given a status is told by this, not by the history.
CREATE UNIQUE INDEX status_history_timer_once ON status_history (contract_id, status_id, date_result, domain_id)
    WHERE cause = 'timer';
CREATE UNIQUE INDEX status_history_initial_once ON status_history (contract_id, date_result, domain_id) WHERE cause = 'initial';
CREATE INDEX subscription_history_contact ON subscription_history (contact_id);

-- The order of the history: by date; of one date what came by itself, the initial status first, before what imports
-- say of that date, in their order.
CREATE VIEW status_chain AS
SELECT history_id, domain_id, contract_id, status_id, date_result, recorded_at, cause, seqno, record_no, had,
       lag(status_id) OVER in_order AS previous_status_id,
       lead(history_id) OVER in_order IS NULL AS is_current
FROM status_history
WHERE withdrawn_at IS NULL
WINDOW in_order AS (
    PARTITION BY domain_id, contract_id ORDER BY date_result, seqno NULLS FIRST, record_no NULLS FIRST, history_id);
COMMENT ON VIEW status_chain IS
    'The history in its order, without what is withdrawn; each entry names the status before it, if that is kept.';
COMMENT ON TABLE contract IS 'A contract, and its current status: the last entry of its history (view status_chain).';

ANALYZE status_history, subscription_history;

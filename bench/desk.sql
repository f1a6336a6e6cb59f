-- A database of the size that the desk is measured at. Everything satisfies the constraints of the tables and what
-- `rowledger check` promises; what became of a record follows from the numbers of batch and record.
-- The session has the settings bench.batches and bench.contacts; the reference data of the demo and its templates are there.

-- name: more_codes
INSERT INTO contract_status (domain_id, phase_id, code, description)
SELECT domain_id, min(phase_id), 'S' || n, 'Status number ' || n
FROM contract_phase JOIN domain USING (domain_id), generate_series(1, 200) AS n
WHERE domain.code = 'DEMO' GROUP BY domain_id, n;
INSERT INTO origin (domain_id, code, name)
SELECT domain_id, 'CAMPAIGN-' || n, 'Campaign number ' || n
FROM domain, generate_series(1, 300) AS n WHERE domain.code = 'DEMO';
INSERT INTO subscription (domain_id, list_id, name, type, display_sequence)
SELECT domain_id, 'LIST-' || n, 'Mailing list number ' || n, 'email', n
FROM domain, generate_series(1, 50) AS n WHERE domain.code = 'DEMO';
INSERT INTO reference_value (list_name, value) SELECT 'postal_codes', n::text FROM generate_series(10000, 29999) AS n;

-- name: plan
-- One batch in the middle is large: a record for every contact. Of twenty batches thirteen are of contacts, one of them
-- of the domain TRAVEL, five of statuses, two of contracts.
CREATE TEMPORARY TABLE bench_plan AS
SELECT seqno,
       CASE WHEN place <= 12 THEN 'contact' WHEN place <= 17 THEN 'contract_status' ELSE 'contract' END AS kind,
       CASE WHEN place = 12 THEN 'TRAVEL' ELSE 'DEMO' END AS domain,
       CASE WHEN place = 12 THEN 'travel_leads' WHEN place < 12 THEN 'contacts' WHEN place < 17 THEN 'result_codes'
            WHEN place = 17 THEN 'result_codes_with_header' ELSE 'contracts' END AS template,
       CASE WHEN seqno = batches / 2 THEN 'large'
            WHEN seqno > batches - 27 THEN 'waiting'
            WHEN seqno > batches - 29 THEN 'paused'
            WHEN seqno > batches - 30 THEN 'in_progress'
            WHEN mod(seqno, 100) = 7 THEN 'unreadable'
            WHEN mod(seqno, 100) = 57 THEN 'refused'
            WHEN mod(seqno, 200) = 33 THEN 'cancelled'
            ELSE 'processed' END AS fate,
       CASE WHEN seqno = batches / 2 THEN contacts
            WHEN seqno > batches - 29 OR mod(seqno, 100) = 7 THEN 0
            ELSE 30 + mod(seqno * 37, 131) END AS records,
       date_trunc('minute', now()) - (batches + 1 - seqno) * interval '10 minutes 30 seconds' AS uploaded_at,
       batches, contacts
FROM (SELECT current_setting('bench.batches')::integer AS batches, current_setting('bench.contacts')::integer AS contacts) AS size,
     generate_series(1, batches) AS seqno, LATERAL (SELECT mod(seqno, 20) AS place) AS placed;

-- name: volumes
-- Of a month each.
SELECT make_ledger_volume(first_seqno, first_seqno + 4114, domain_id)
FROM generate_series(1, (SELECT max(seqno) FROM bench_plan), 4114) AS first_seqno, domain
WHERE domain.code IN ('DEMO', 'TRAVEL')
ORDER BY first_seqno, domain_id;

-- name: records_of_contacts
-- Contacts 20q + 1 to 20q + 16 of the large batch are there; those of the first hundreds come again and again.
INSERT INTO import_record (seqno, domain_id, record_no, outcome, target_id, reasons, warnings, raw, before, recorded_at)
SELECT seqno, (SELECT domain_id FROM domain WHERE code = domain), record_no, outcome,
       CASE WHEN outcome IN ('updated', 'unchanged') THEN
                CASE WHEN domain = 'TRAVEL' THEN contacts + mod(seqno, 900) / 20 * 20 + 1 + mod(record_no, 20)
                     ELSE 20 * mod(CASE WHEN mod(n, 100) = 0 THEN mod(n, 5) ELSE n::bigint * 7919 END, contacts / 20) + 1 + mod(n, 16) END
            WHEN outcome = 'created' THEN
                CASE WHEN fate = 'large' THEN record_no
                     WHEN domain = 'TRAVEL' THEN contacts + seqno / 20 * 20 + record_no
                     ELSE contacts + 2 * batches + seqno END
       END,
       CASE WHEN outcome = 'rejected' THEN CASE
           WHEN mod(record_no, 9973) = 0 THEN jsonb_build_array(jsonb_build_object('rule', 'superseded_in_file', 'column', 'Customer number', 'value', 'K' || n, 'message', 'A later record of the file has the same key.'))
           WHEN mod(n, 7) < 3 THEN jsonb_build_array(jsonb_build_object('rule', 'not_in_set', 'column', 'Country', 'value', 'XX', 'message', 'Country "XX" is not in the list.'))
           WHEN mod(n, 7) < 5 THEN jsonb_build_array(jsonb_build_object('rule', 'format', 'column', 'Email', 'value', 'nobody', 'message', 'Email "nobody" is no email address.'))
           WHEN mod(n, 7) = 5 THEN jsonb_build_array(jsonb_build_object('rule', 'required', 'column', 'Last name', 'value', NULL, 'message', 'Last name is missing.'))
           ELSE jsonb_build_array(jsonb_build_object('rule', 'required', 'column', 'Last name', 'value', NULL, 'message', 'Last name is missing.'),
                                  jsonb_build_object('rule', 'max_length', 'column', 'City', 'value', repeat('x', 101), 'message', 'City is longer than 100 characters.'))
           END END,
       CASE WHEN mod(n, 211) = 0 THEN jsonb_build_array(jsonb_build_object('rule', 'format', 'column', 'Mobile', 'value', '12', 'message', 'Mobile "12" is no phone number; it was left out.')) END,
       CASE WHEN outcome = 'rejected' THEN jsonb_build_array('K' || n, 'nobody', 'Ada', '', 'Example Ltd', '', '12', 'Long Street 5', '10115', 'Town', 'XX', '', '', '', '', '', '', '') END,
       CASE WHEN outcome = 'updated' THEN '{"city": "Old town"}'::jsonb END,
       uploaded_at + interval '2 minutes'
FROM (
    SELECT bench_plan.*, record_no, n, CASE
        WHEN fate = 'cancelled' OR fate = 'refused' AND mod(record_no, 2) = 0 THEN 'unprocessed'
        WHEN fate = 'refused' THEN 'rejected'
        WHEN fate = 'large' THEN CASE WHEN mod(record_no, 20) < 17 THEN 'created' WHEN mod(record_no, 20) = 17 THEN CASE WHEN mod(record_no, 997) = 0 THEN 'updated' ELSE 'unchanged' END ELSE 'rejected' END
        WHEN domain = 'TRAVEL' THEN CASE WHEN record_no <= 20 THEN 'created' WHEN mod(n, 10) = 0 THEN 'rejected' ELSE 'unchanged' END
        WHEN record_no = 1 THEN 'created'
        WHEN mod(n, 1000) < 80 THEN 'rejected'
        WHEN mod(n, 1000) < 500 THEN 'updated'
        ELSE 'unchanged' END AS outcome
    FROM bench_plan, generate_series(1, CASE WHEN fate = 'in_progress' THEN 1 ELSE records END) AS record_no,
         LATERAL (SELECT mod(seqno * 7919 + record_no::bigint * 10477, 1000003) AS n) AS numbered
    WHERE kind = 'contact'
) AS told
ORDER BY seqno, record_no;

-- name: records_of_contracts
-- Each batch creates up to thirty. The ids begin behind those of the demo's.
INSERT INTO import_record (seqno, domain_id, record_no, outcome, target_id, reasons, raw, recorded_at)
SELECT seqno, (SELECT domain_id FROM domain WHERE code = 'DEMO'), record_no, outcome,
       CASE WHEN outcome <> 'rejected' THEN 1000000 + ((seqno / 20) * 2 + mod(seqno, 20) - 18) * 30 + least(record_no, 20) END,
       CASE WHEN outcome = 'rejected' THEN jsonb_build_array(jsonb_build_object('rule', 'format', 'column', 'Sign-up date', 'value', '2025-13-40', 'message', 'Sign-up date "2025-13-40" is no date.')) END,
       CASE WHEN outcome = 'rejected' THEN jsonb_build_array('C' || seqno, '2025-13-40', '', '') END,
       uploaded_at + interval '2 minutes'
FROM bench_plan, generate_series(1, records) AS record_no,
     LATERAL (SELECT CASE WHEN record_no <= 20 THEN 'created' WHEN mod(record_no, 9) = 0 THEN 'rejected' ELSE 'unchanged' END AS outcome) AS told
WHERE kind = 'contract'
ORDER BY seqno, record_no;

-- name: records_of_statuses
-- Every contract comes in turn: none twice on one day.
CREATE TEMPORARY TABLE bench_status AS
SELECT seqno, record_no, uploaded_at, outcome, date '2024-01-01' + batch / least(25, slots / 200) AS day, p,
       1000000 + mod(p, slots) / 20 * 30 + mod(p, slots) % 20 + 1 AS contract_id
FROM (
    SELECT seqno, fate, uploaded_at, record_no, (seqno / 20) * 5 + mod(seqno, 20) - 13 AS batch,
           ((seqno / 20) * 5 + mod(seqno, 20) - 13) * 160 + record_no AS p, (batches / 20 - 2) * 2 * 20 AS slots
    FROM bench_plan, generate_series(1, records) AS record_no
    WHERE kind = 'contract_status'
) AS numbered, LATERAL (SELECT mod(p * 31, 1000) AS n) AS n, LATERAL (SELECT CASE
    WHEN fate = 'cancelled' OR fate = 'refused' AND mod(record_no, 2) = 0 THEN 'unprocessed'
    WHEN fate = 'refused' THEN 'rejected'
    WHEN n < 500 THEN 'updated' WHEN n < 560 THEN 'historic' WHEN n < 900 THEN 'unchanged' WHEN n < 980 THEN 'rejected'
    WHEN n < 995 THEN 'ignored' ELSE 'parked' END AS outcome) AS told;
INSERT INTO import_record (seqno, domain_id, record_no, outcome, target_id, reasons, raw, recorded_at)
SELECT seqno, (SELECT domain_id FROM domain WHERE code = 'DEMO'), record_no, outcome, CASE WHEN outcome IN ('updated', 'historic', 'unchanged') THEN contract_id END,
       CASE outcome
           WHEN 'rejected' THEN jsonb_build_array(jsonb_build_object('rule', 'unknown_contract', 'column', 'Form ID', 'value', 'X' || p, 'message', 'There is no contract "X' || p || '".'))
           WHEN 'ignored' THEN jsonb_build_array(jsonb_build_object('rule', 'unknown_status', 'column', 'Result code', 'value', '99', 'message', 'There is no status "99".'))
           WHEN 'parked' THEN jsonb_build_array(jsonb_build_object('rule', 'unknown_contract', 'column', 'Form ID', 'value', 'X' || p, 'message', 'There is no contract "X' || p || '" yet.'))
       END,
       CASE WHEN outcome IN ('rejected', 'ignored', 'parked') THEN jsonb_build_array('X' || p, to_char(day, 'DD-MM-YYYY'), '99', 'agent', '') END,
       uploaded_at + interval '2 minutes'
FROM bench_status
ORDER BY seqno, record_no;

-- name: batches
INSERT INTO import_batch (
    seqno, kind, domain_id, template_hash, file_name, file_path, file_bytes, file_sha256, uploaded_by, uploaded_through,
    uploaded_at, status, epoch, run_id, leased_until, import_completed, processed, columns, error_rule, error_message,
    started_at, validated_at, processed_at, records_in_file, validated_records, staged_records, loaded_records,
    created, updated, unchanged, historic, ignored, parked, rejected, unprocessed)
OVERRIDING SYSTEM VALUE
SELECT seqno, plan.kind, domain_id, template_hash,
       CASE plan.kind WHEN 'contact' THEN 'contacts_' || (ARRAY['spring_fair', 'web_shop', 'agency', 'newsletter', 'händler'])[1 + mod(seqno, 5)]
                      WHEN 'contract' THEN 'contracts' ELSE 'result_codes_call_centre' END
           || to_char(uploaded_at, '_YYYY_MM_DD_HH24MI') || '.csv',
       current_setting('bench.file'), 1000 + records * 80, encode(sha256(seqno::text::bytea), 'hex'),
       CASE WHEN mod(seqno, 3) = 0 THEN 'feed of ' || plan.kind
            ELSE (ARRAY['mia', 'noah', 'emma', 'liam', 'zoé', 'jonas', 'clara', 'paul', 'ida', 'max', 'lena', 'finn'])[1 + mod(seqno * 7, 12)] END,
       CASE WHEN mod(seqno, 3) = 0 THEN 'api' ELSE (ARRAY['page', 'api', 'command line'])[1 + mod(seqno, 3)] END,
       uploaded_at,
       CASE WHEN fate IN ('waiting', 'paused', 'in_progress', 'cancelled') THEN fate ELSE 'executed' END,
       (fate NOT IN ('waiting', 'paused'))::integer,
       CASE WHEN fate NOT IN ('waiting', 'paused') THEN 'scheduled__' || to_char(date_bin('15 minutes', uploaded_at, '2020-01-01'), 'YYYY-MM-DD"T"HH24:MI:SS') END,
       CASE WHEN fate = 'in_progress' THEN now() + interval '10 years' END,
       fate IN ('processed', 'large', 'in_progress', 'refused'), fate IN ('processed', 'large'),
       CASE WHEN template = 'contacts' THEN '{"email": "Email", "last_name": "Last name", "country": "Country"}'::jsonb ELSE '{}' END,
       CASE fate WHEN 'unreadable' THEN 'encoding' WHEN 'refused' THEN 'too_many_rejected' END,
       CASE fate WHEN 'unreadable' THEN 'The file is not UTF-8: byte 0xE4 in line 3 means nothing. Save it as UTF-8 and upload it again.'
                 WHEN 'refused' THEN 'Half of the records are rejected; nothing was loaded.' END,
       CASE WHEN fate NOT IN ('waiting', 'paused') THEN uploaded_at + interval '1 minute' END,
       CASE WHEN fate IN ('processed', 'large', 'in_progress', 'refused') THEN uploaded_at + interval '90 seconds' END,
       CASE WHEN fate NOT IN ('waiting', 'paused', 'in_progress') THEN uploaded_at + interval '5 minutes' END,
       nullif(records, 0), records, records - coalesce(rejected, 0), coalesce(created + updated + unchanged, 0),
       coalesce(created, 0), coalesce(updated, 0), coalesce(unchanged, 0), coalesce(historic, 0),
       coalesce(ignored, 0), coalesce(parked, 0), coalesce(rejected, 0), coalesce(unprocessed, 0)
FROM bench_plan AS plan
JOIN domain ON domain.code = plan.domain
JOIN template_version ON template_version.name = plan.template
LEFT JOIN (
    SELECT seqno, count(*) FILTER (WHERE outcome = 'created') AS created, count(*) FILTER (WHERE outcome = 'updated') AS updated,
           count(*) FILTER (WHERE outcome = 'unchanged') AS unchanged, count(*) FILTER (WHERE outcome = 'historic') AS historic,
           count(*) FILTER (WHERE outcome = 'ignored') AS ignored, count(*) FILTER (WHERE outcome = 'parked') AS parked,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected, count(*) FILTER (WHERE outcome = 'unprocessed') AS unprocessed
    FROM import_record GROUP BY seqno
) AS counted USING (seqno)
ORDER BY seqno;
INSERT INTO import_batch_rare_outcome
SELECT seqno, 0, outcome, array_agg(record_no ORDER BY record_no)
FROM import_record WHERE outcome = 'updated' AND seqno = (SELECT seqno FROM import_batch WHERE records_in_file > 10000)
GROUP BY seqno, outcome;
SELECT setval(pg_get_serial_sequence('import_batch', 'seqno'), max(seqno)) FROM import_batch;
INSERT INTO import_batch_event (seqno, occurred_at, event, by, detail)
SELECT seqno, uploaded_at, 'uploaded', uploaded_by, file_name FROM import_batch
UNION ALL
SELECT seqno, processed_at, CASE WHEN status = 'cancelled' THEN 'cancelled' WHEN processed THEN 'executed' ELSE 'failed' END, 'airflow', error_message
FROM import_batch WHERE processed_at IS NOT NULL;
INSERT INTO import_batch_origin (seqno, origin_id)
SELECT seqno, origin_id
FROM (SELECT seqno, domain_id, generate_series(1, 1 + mod(seqno, 2)) AS nth FROM import_batch WHERE kind = 'contact' AND mod(seqno, 5) < 3) AS b
JOIN (SELECT domain_id, origin_id, row_number() OVER (PARTITION BY domain_id ORDER BY origin_id) - 1 AS place,
             count(*) OVER (PARTITION BY domain_id) AS places FROM origin WHERE active) AS o
  ON o.domain_id = b.domain_id AND place = mod(seqno / 10 + nth, places::bigint);
INSERT INTO import_batch_subscription (seqno, subscription_id)
SELECT seqno, subscription_id FROM import_batch JOIN subscription USING (domain_id)
WHERE kind = 'contact' AND mod(seqno, 4) = 0 AND list_id IN ('NEWS', 'JOURNEYS');
INSERT INTO parked_record (seqno, record_no, kind, domain_id, match_key, fields, waits_for, key, parked_at)
SELECT seqno, record_no, kind, domain_id, 'X' || p, jsonb_build_object('form_id', 'X' || p, 'result_code', '99', 'date_result', day), 'contract', 'X' || p, bench_status.uploaded_at
FROM bench_status JOIN import_batch USING (seqno)
WHERE outcome = 'parked';

-- name: reasons
SELECT import_batch_count_reasons(seqno, reopened)
FROM import_batch
WHERE status IN ('executed', 'cancelled') AND rejected + ignored + parked > 0;

-- name: contacts
INSERT INTO contact (contact_id, domain_id, external_id, email, first_name, last_name, company, phone, street, postal_code, city,
                     country, birth_date, roles, attributes, created_at)
OVERRIDING SYSTEM VALUE
SELECT target_id, domain_id, 'K' || lpad(target_id::text, 8, '0'), 'person' || target_id || '@mail' || mod(target_id, 97) || '.example.org',
       'Anna' || mod(target_id, 800), 'Muster' || mod(target_id, 5000), 'Example ' || mod(target_id, 3000) || ' Ltd',
       '+4930' || lpad(target_id::text, 8, '0'), 'Long Street ' || mod(target_id, 200), (10000 + mod(target_id, 80000))::text,
       'Town ' || mod(target_id, 900), 'DE', date '1950-01-01' + mod(target_id, 15000)::integer, '{customer}', '{"loyalty_card": "4711"}', recorded_at
FROM import_record JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contact' AND outcome = 'created'
ORDER BY seqno, record_no;
SELECT setval(pg_get_serial_sequence('contact', 'contact_id'), max(contact_id)) FROM contact;
INSERT INTO contact_origin (contact_id, origin_id, seqno, record_no, added_at)
SELECT target_id, origin_id, seqno, record_no, recorded_at
FROM import_record JOIN import_batch USING (seqno, domain_id)
JOIN (SELECT domain_id, min(origin_id) AS origin_id FROM origin WHERE active GROUP BY domain_id) AS first USING (domain_id)
WHERE kind = 'contact' AND outcome = 'created'
ORDER BY seqno, record_no;
SELECT open_history('subscription_history', domain_id, array_agg(DISTINCT date_trunc('year', uploaded_at)::date))
FROM import_batch GROUP BY domain_id;
INSERT INTO subscription_history (contact_id, domain_id, subscription_id, opted_in, recorded_at, seqno, record_no)
SELECT target_id, domain_id, subscription_id, true, recorded_at, seqno, record_no
FROM import_record JOIN import_batch USING (seqno, domain_id) JOIN subscription USING (domain_id)
WHERE kind = 'contact' AND outcome = 'created' AND mod(target_id, 3) = 0 AND list_id IN ('NEWS', 'JOURNEYS')
ORDER BY seqno, record_no;
INSERT INTO contact_subscription (contact_id, subscription_id, opted_in, changed_at)
SELECT contact_id, subscription_id, true, recorded_at FROM subscription_history;

-- name: contracts
INSERT INTO contract (contract_id, domain_id, form_id, sign_up_date, contact_id)
OVERRIDING SYSTEM VALUE
SELECT target_id, domain_id, 'C' || target_id, '2023-01-01',
       20 * mod(target_id * 7919, current_setting('bench.contacts')::bigint / 20) + 1 + mod(target_id, 16)
FROM import_record JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contract' AND outcome = 'created'
ORDER BY seqno, record_no;
SELECT setval(pg_get_serial_sequence('contract', 'contract_id'), max(contract_id)) FROM contract;
SELECT open_history('status_history', domain_id, ARRAY(SELECT generate_series('2022-01-01', now(), '1 year')::date)) FROM domain;
INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
SELECT contract_id, domain_id, contract_status.status_id, sign_up_date, 'initial'
FROM contract JOIN contract_status USING (domain_id)
WHERE initial AND contract_id >= 1000000
ORDER BY contract_id;
INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause, seqno, record_no, recorded_at)
SELECT contract_id, domain.domain_id, status_id, day, 'import', seqno, record_no, bench_status.uploaded_at + interval '2 minutes'
FROM bench_status
JOIN contract_status ON contract_status.code = (ARRAY['20', '25', '30', '35', '40'])[1 + mod(p, 5)]
JOIN domain ON domain.domain_id = contract_status.domain_id AND domain.code = 'DEMO'
WHERE outcome IN ('updated', 'historic')
ORDER BY seqno, record_no;
UPDATE contract SET (status_id, date_result, seqno, record_no) = (last.status_id, last.date_result, last.seqno, last.record_no)
FROM status_chain AS last
WHERE is_current AND last.contract_id = contract.contract_id AND contract.contract_id >= 1000000;
DROP TABLE bench_plan, bench_status;

-- name: feeds
-- A third of the files came by three feeds.
INSERT INTO feed (name, kind, domain, since, looked_at, last_file_at)
SELECT 'of ' || kind, kind, 'DEMO', min(uploaded_at), now(), max(uploaded_at) FROM import_batch GROUP BY kind;
INSERT INTO feed_file (feed, name, identity, bytes, sha256, seqno, taken_at, handled_at)
SELECT 'of ' || kind, file_name, seqno::text, file_bytes, file_sha256, seqno, uploaded_at, uploaded_at
FROM import_batch WHERE mod(seqno, 3) = 0;

-- name: places
-- What the questions are about: a word, and one of its values.
WITH size AS (SELECT max(seqno) AS batches, max(records_in_file) AS most FROM import_batch)
SELECT 'large' AS word, to_jsonb(seqno) AS value FROM import_batch, size WHERE records_in_file = most
UNION ALL
(SELECT 'usual', to_jsonb(seqno) FROM import_batch, size
 WHERE processed AND template_hash = (SELECT template_hash FROM template_version WHERE name = 'contacts') AND rejected BETWEEN 1 AND 999 AND mod(seqno, 3) = 1 LIMIT 300)
UNION ALL
(SELECT 'run', to_jsonb(run_id) FROM import_batch WHERE kind = 'contact' AND mod(seqno, 500) < 5 AND run_id IS NOT NULL LIMIT 100)
UNION ALL
(SELECT 'failed', to_jsonb(seqno) FROM import_batch, size WHERE status = 'executed' AND NOT processed AND kind = 'contract_status' LIMIT 50)
UNION ALL
SELECT 'at_work', to_jsonb(seqno) FROM import_batch, size WHERE status = 'in_progress'
UNION ALL
(SELECT DISTINCT 'uploader', to_jsonb(uploaded_by) FROM import_batch WHERE uploaded_by COLLATE "C" ~ '^[a-z]+$')
UNION ALL
(SELECT 'origin', to_jsonb(origin.code) FROM origin JOIN domain USING (domain_id) WHERE active AND domain.code = 'DEMO' ORDER BY origin_id LIMIT 50)
UNION ALL
(SELECT DISTINCT 'day', to_jsonb((uploaded_at AT TIME ZONE 'UTC')::date) FROM import_batch WHERE mod(seqno, 500) = 0)
UNION ALL
SELECT 'far', to_jsonb(most / 100 * n) FROM size, generate_series(50, 95) AS n
UNION ALL
SELECT 'last', to_jsonb(most * 99 / 100) FROM size
UNION ALL
SELECT 'contact', to_jsonb(20 * n + 5) FROM size, generate_series(10, most / 20 - 1, greatest(1, most / 20000)) AS n
UNION ALL
SELECT 'hot', to_jsonb(20 * n + 1 + m) FROM generate_series(0, 4) AS n, generate_series(0, 7) AS m
UNION ALL
(SELECT 'contract', to_jsonb(contract_id) FROM contract WHERE contract_id >= 1000000 AND mod(contract_id, 30) < 20 AND seqno IS NOT NULL LIMIT 500)

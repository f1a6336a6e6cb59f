-- name: find_rolled_back
-- What roll backs have kept of keys of contacts, and whether the contact went.
CREATE TEMPORARY TABLE rolled_back ON COMMIT DROP AS
SELECT seqno, target_id AS contact_id, removed -> 'fields' ->> 'external_id' AS external_id, removed -> 'fields' ->> 'email' AS email,
       NOT EXISTS (SELECT FROM contact WHERE contact_id = target_id) AS gone
FROM roll_back_record JOIN import_batch USING (seqno)
WHERE kind = 'contact' AND domain_id = %(domain_id)s AND removed -> 'fields' ?| ARRAY['external_id', 'email']

-- name: find_contacts
-- The contact that has the key; if nobody has, contacts that had it and went when what had created them was rolled back.
CREATE TEMPORARY TABLE person (
    contact_id bigint PRIMARY KEY,
    lives boolean NOT NULL,  -- not rolled back
    followed boolean NOT NULL  -- whether its other keys are the person's as well
) ON COMMIT DROP;
INSERT INTO person
WITH now AS (
    SELECT contact_id FROM (
        SELECT 1 AS rank, contact_id FROM contact WHERE domain_id = %(domain_id)s AND external_id = %(key)s
        UNION ALL
        SELECT 2, contact_id FROM contact WHERE domain_id = %(domain_id)s AND lower(email) = lower(%(key)s COLLATE "C")
    ) AS found
    ORDER BY rank
    LIMIT 1
)
SELECT contact_id, true, true FROM now
UNION
SELECT contact_id, false, true FROM rolled_back
WHERE gone AND NOT EXISTS (SELECT FROM now)
  AND (external_id = %(key)s OR lower(email COLLATE "C") = lower(%(key)s COLLATE "C"))

-- name: find_keys
-- Every key the person has or had, unless somebody else has it now: as it is written, and what has an @ folded, too, as an
-- email.
CREATE TEMPORARY TABLE person_key ON COMMIT DROP AS
WITH written AS (
    SELECT %(key)s::text AS told
    UNION
    SELECT unnest(ARRAY[external_id, email]) FROM contact JOIN person USING (contact_id)
    UNION
    SELECT unnest(ARRAY[before ->> 'external_id', before ->> 'email'])
    FROM import_record JOIN person ON target_id = contact_id JOIN import_batch USING (seqno, domain_id)
    WHERE kind = 'contact' AND domain_id = %(domain_id)s AND followed
    UNION
    SELECT unnest(ARRAY[external_id, email]) FROM rolled_back JOIN person USING (contact_id) WHERE followed
)
SELECT DISTINCT key, email, regexp_replace(key, '[^[:alnum:]]', '\\\&', 'g') AS pattern
FROM (
    SELECT told, told AS key, false AS email FROM written
    UNION ALL
    SELECT told, lower(told COLLATE "C"), true FROM written WHERE told LIKE '%%@%%'
) AS form
WHERE key <> ''
  AND NOT EXISTS (
      SELECT FROM contact AS other
      WHERE domain_id = %(domain_id)s AND contact_id NOT IN (SELECT contact_id FROM person)
        AND (external_id IN (told, key) OR lower(other.email) = lower(key COLLATE "C")))

-- name: add_rolled_back
-- Contacts that are gone and had one of these keys. External ids tell people apart: who shared nothing but an email and
-- had an external id of its own loses what is kept of it, which names the person, but its other keys are not followed.
INSERT INTO person
SELECT contact_id, false,
       bool_or(coalesce(external_id IN (SELECT key FROM person_key WHERE NOT email), false)) OR bool_and(external_id IS NULL)
FROM rolled_back
WHERE gone
GROUP BY contact_id
HAVING bool_or(external_id IN (SELECT key FROM person_key WHERE NOT email)
               OR lower(email COLLATE "C") IN (SELECT key FROM person_key WHERE person_key.email))
ON CONFLICT (contact_id) DO UPDATE SET followed = true WHERE NOT person.followed AND excluded.followed

-- name: find_records
-- Records about the person, and those that name one of the keys in a cell: an email as a word of it, an external id as
-- all of it, or as a word where the record could not be cut into cells. Where the cells are not there (yet), in the values
-- of its reasons. Or in a value that a contract was warned about.
-- The second time, when imports wait, only where the first has found some, and what has changed since.
CREATE TEMPORARY TABLE person_record ON COMMIT DROP AS
SELECT seqno, record_no, status IN ('executed', 'cancelled') AS ended
FROM import_record JOIN person ON target_id = contact_id JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contact' AND domain_id = %(domain_id)s
UNION
SELECT seqno, record_no, status IN ('executed', 'cancelled')
FROM import_record AS r JOIN import_batch AS b USING (seqno, domain_id)
WHERE domain_id = %(domain_id)s AND outcome IN ('rejected', 'ignored', 'parked')
  AND (%(since)s::timestamptz IS NULL OR b.seqno = ANY(%(affected)s) OR processed_at IS NULL OR processed_at >= %(since)s::timestamptz - interval '1 h')
  AND EXISTS (
      SELECT FROM jsonb_array_elements_text(
          CASE WHEN raw <> '[]' THEN raw ELSE jsonb_path_query_array(reasons, '$[*].value') END) AS said (text)
      -- Cells are as they stand in the file, keys are NFC.
      CROSS JOIN LATERAL (
          SELECT CASE WHEN octet_length(text) = char_length(text) THEN text ELSE normalize(text) END AS cell OFFSET 0) AS form
      JOIN person_key ON email OR key NOT LIKE '%%@%%'
      WHERE CASE WHEN email THEN lower(cell COLLATE "C") ~ ('(^|[^a-z0-9._%%+-])' || pattern || '($|[^a-z0-9_.-]|[.]($|[^a-z0-9]))')
            WHEN raw <> '[]' AND jsonb_array_length(raw) > 1 THEN btrim(cell, E' \t\r\n\u00a0''"') = key
            ELSE cell ~ ('(^|[^[:alnum:]])' || pattern || '($|[^[:alnum:]])') END)
UNION
SELECT seqno, record_no, status IN ('executed', 'cancelled')
FROM import_record AS r JOIN import_batch AS b USING (seqno, domain_id)
WHERE domain_id = %(domain_id)s AND kind = 'contract' AND r.warnings IS NOT NULL
  AND (%(since)s::timestamptz IS NULL OR b.seqno = ANY(%(affected)s) OR processed_at IS NULL OR processed_at >= %(since)s::timestamptz - interval '1 h')
  AND EXISTS (
      SELECT FROM jsonb_array_elements(r.warnings) AS warning JOIN person_key
        ON key = CASE WHEN email THEN lower(btrim(warning ->> 'value') COLLATE "C") ELSE btrim(warning ->> 'value') END)

-- name: now
-- When the transaction began: before it saw anything.
SELECT now() AS since

-- name: keys
SELECT DISTINCT key FROM person_key ORDER BY key

-- name: open
SELECT seqno FROM import_batch WHERE domain_id = %(domain_id)s AND status NOT IN ('executed', 'cancelled')

-- name: unsure
-- Batches that ended and whose ledger does not tell every record of their file.
SELECT seqno, file_sha256
FROM import_batch AS b
WHERE domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
  AND (NOT processed
       OR EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND what IN ('cells', 'ledger')))
  AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND what = 'file')
ORDER BY seqno

-- name: only_staged
-- Batches that failed and whose file is not there any more, but whose staged records are.
SELECT seqno
FROM import_batch AS b
WHERE domain_id = %(domain_id)s AND status IN ('executed', 'cancelled') AND NOT processed
  AND EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = b.seqno AND what = 'file')
  AND to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL
ORDER BY seqno

-- name: staged_naming
-- Whether a staged record names the person.
SELECT EXISTS (
    SELECT FROM {staging} AS staged CROSS JOIN LATERAL (SELECT to_jsonb(staged)) AS one (fields)
    WHERE fields ->> 'external_id' IN (SELECT key FROM person_key WHERE NOT email)
       OR fields ->> 'contact' IN (SELECT key FROM person_key WHERE NOT email)
       OR lower(fields ->> 'email' COLLATE "C") IN (SELECT key FROM person_key WHERE person_key.email)) AS named

-- name: batches
-- The batches whose file names the person, and those of the same file. A roll back that has kept a key had it of its file.
CREATE TEMPORARY TABLE person_batch ON COMMIT DROP AS
SELECT seqno
FROM import_batch
WHERE domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
  AND file_sha256 IN (
      SELECT file_sha256 FROM import_batch
      WHERE seqno IN (SELECT seqno FROM person_record WHERE ended) OR seqno = ANY(%(named)s)
         OR seqno IN (SELECT seqno FROM rolled_back
                      WHERE external_id IN (SELECT key FROM person_key WHERE NOT email)
                         OR lower(email COLLATE "C") IN (SELECT key FROM person_key WHERE person_key.email)))

-- name: seqnos
SELECT seqno FROM person_batch ORDER BY seqno

-- name: begin
INSERT INTO erasure (domain_id, by, salt, key_sha256)
VALUES (%(domain_id)s, %(by)s, %(salt)s, %(key_sha256)s)
RETURNING erasure_id

-- name: erase_contracts
WITH gone AS (
    UPDATE contract SET contact_id = NULL WHERE contact_id IN (SELECT contact_id FROM person) RETURNING contract_id
)
INSERT INTO erasure_count (erasure_id, place, items) SELECT %(erasure_id)s, 'links of contracts', count(*) FROM gone HAVING count(*) > 0

-- name: erase_subscription_history
WITH gone AS (
    DELETE FROM subscription_history WHERE contact_id IN (SELECT contact_id FROM person) RETURNING contact_id
)
INSERT INTO erasure_count (erasure_id, place, items) SELECT %(erasure_id)s, 'subscription history', count(*) FROM gone HAVING count(*) > 0

-- name: erase_subscriptions
WITH gone AS (
    DELETE FROM contact_subscription WHERE contact_id IN (SELECT contact_id FROM person) RETURNING contact_id
)
INSERT INTO erasure_count (erasure_id, place, items) SELECT %(erasure_id)s, 'subscriptions', count(*) FROM gone HAVING count(*) > 0

-- name: erase_origins
WITH gone AS (
    DELETE FROM contact_origin WHERE contact_id IN (SELECT contact_id FROM person) RETURNING contact_id
)
INSERT INTO erasure_count (erasure_id, place, items) SELECT %(erasure_id)s, 'origins', count(*) FROM gone HAVING count(*) > 0

-- name: erase_contact
WITH noted AS (
    INSERT INTO erased_contact (contact_id, erasure_id)
    SELECT contact_id, %(erasure_id)s FROM person ON CONFLICT DO NOTHING
),
gone AS (
    DELETE FROM contact WHERE contact_id IN (SELECT contact_id FROM person) RETURNING contact_id
)
INSERT INTO erasure_count (erasure_id, place, items) SELECT %(erasure_id)s, 'contacts', count(*) FROM gone HAVING count(*) > 0

-- name: erase_records
WITH gone AS (
    UPDATE import_record AS r
    SET raw = CASE WHEN raw IS NOT NULL OR outcome IN ('rejected', 'ignored', 'parked') THEN jsonb '[]' END,
        reasons = without_values(reasons), warnings = without_values(r.warnings),
        before = CASE WHEN before IS NOT NULL AND kind = 'contact' THEN jsonb '{}' ELSE before END
    FROM person_record AS p JOIN import_batch USING (seqno)
    WHERE (r.seqno, r.record_no) = (p.seqno, p.record_no) AND r.domain_id = %(domain_id)s AND ended
    RETURNING r.seqno, r.record_no
),
noted AS (
    INSERT INTO erased_record (seqno, record_no, erasure_id)
    SELECT seqno, record_no, %(erasure_id)s FROM gone ON CONFLICT DO NOTHING
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'records of the ledger', seqno, count(*) FROM gone GROUP BY seqno

-- name: erase_before
-- Which contact contracts were linked to before; which keys of the person other contacts had before, if it is known who
-- the person is: the contact that has the key now.
WITH named AS (
    SELECT seqno, record_no, domain_id, kind, jsonb_object_agg(field, NULL) AS erased
    FROM import_record
    JOIN import_batch USING (seqno, domain_id)
    JOIN (VALUES ('contract', 'contact', false), ('contact', 'external_id', false), ('contact', 'email', true)) AS place (of_kind, field, folded)
      ON of_kind = kind
    WHERE domain_id = %(domain_id)s AND outcome = 'updated'
      AND CASE WHEN folded THEN lower(before ->> field COLLATE "C") IN (SELECT key FROM person_key WHERE email)
          ELSE before ->> field IN (SELECT key FROM person_key WHERE NOT email) END
      AND (kind <> 'contact' OR EXISTS (SELECT FROM person WHERE lives))
    GROUP BY seqno, record_no, domain_id, kind
),
gone AS (
    UPDATE import_record AS r SET before = before || erased
    FROM named
    WHERE (r.seqno, r.record_no, r.domain_id) = (named.seqno, named.record_no, named.domain_id)
    RETURNING r.seqno, kind
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'values before, of ' || kind || 's', seqno, count(*) FROM gone GROUP BY kind, seqno

-- name: left_contacts
-- Nobody has the key, but contacts have had it, or what is gone had it and their external id: whether one of them is the
-- person, people must say. In the batches that changed it or were rolled back.
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'LEFT: contact that had the key before and has another now', seqno, count(DISTINCT contact_id)
FROM (
    SELECT seqno, contact_id
    FROM import_record JOIN import_batch USING (seqno, domain_id) JOIN contact ON contact_id = target_id
    WHERE kind = 'contact' AND import_record.domain_id = %(domain_id)s AND outcome = 'updated'
      AND (before ->> 'external_id' IN (SELECT key FROM person_key WHERE NOT person_key.email)
           OR lower(before ->> 'email' COLLATE "C") IN (SELECT key FROM person_key WHERE person_key.email))
    UNION ALL
    SELECT seqno, contact.contact_id
    FROM person JOIN rolled_back USING (contact_id) JOIN contact ON contact.external_id = rolled_back.external_id
    WHERE domain_id = %(domain_id)s
) AS had
WHERE NOT EXISTS (SELECT FROM person WHERE lives)
GROUP BY seqno

-- name: erase_parked
WITH gone AS (
    UPDATE parked_record AS r SET reasons = without_values(reasons), warnings = without_values(warnings)
    FROM person_record AS p
    WHERE (r.seqno, r.record_no) = (p.seqno, p.record_no) AND ended
    RETURNING r.seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'parked records', seqno, count(*) FROM gone GROUP BY seqno

-- name: erase_roll_backs
-- Of records about the person all; of others what names it.
WITH naming AS (
    SELECT seqno, record_no,
           kind = 'contact' AND target_id IN (SELECT contact_id FROM person) AS whole,
           kind = 'contact' AND (about IN (SELECT key FROM person_key WHERE NOT email)
                                 OR lower(about COLLATE "C") IN (SELECT key FROM person_key WHERE email)) AS in_about,
           detail IN (SELECT key FROM person_key WHERE NOT email)
               OR lower(detail COLLATE "C") IN (SELECT key FROM person_key WHERE email) AS in_detail,
           kind = 'contact' AND (removed -> 'fields' ->> 'external_id' IN (SELECT key FROM person_key WHERE NOT email)
                                 OR lower(removed -> 'fields' ->> 'email' COLLATE "C") IN (SELECT key FROM person_key WHERE email)) AS in_fields,
           removed -> 'fields' ->> 'contact' IN (SELECT key FROM person_key WHERE NOT email) AS in_link
    FROM roll_back_record JOIN import_batch USING (seqno)
    WHERE domain_id = %(domain_id)s
),
gone AS (
    UPDATE roll_back_record AS r
    SET about = CASE WHEN about IS NOT NULL AND (whole OR in_about) THEN 'erased' ELSE about END,
        detail = CASE WHEN detail IS NOT NULL AND (whole OR in_detail) THEN 'erased' ELSE detail END,
        removed = CASE WHEN removed IS NOT NULL AND (whole OR in_fields) THEN jsonb '{}'
                  WHEN in_link THEN jsonb_set(removed, '{fields,contact}', 'null')
                  ELSE removed END
    FROM naming
    WHERE (r.seqno, r.record_no) = (naming.seqno, naming.record_no) AND (whole OR in_about OR in_detail OR in_fields OR in_link)
    RETURNING r.seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'records of roll backs', seqno, count(*) FROM gone GROUP BY seqno

-- name: erase_examples
WITH gone AS (
    UPDATE import_batch_reason AS reason
    SET examples = (
        SELECT jsonb_agg(CASE WHEN p.seqno IS NULL THEN one ELSE without_values(jsonb_build_array(one)) -> 0 END ORDER BY place)
        FROM jsonb_array_elements(examples) WITH ORDINALITY AS example (one, place)
        LEFT JOIN person_record AS p ON p.seqno = reason.seqno AND p.record_no = (one ->> 'record_no')::integer)
    WHERE EXISTS (
        SELECT FROM jsonb_array_elements(examples) AS one JOIN person_record AS p
          ON p.seqno = reason.seqno AND p.record_no = (one ->> 'record_no')::integer AND ended)
    RETURNING seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'examples of reasons', seqno, count(*) FROM gone GROUP BY seqno

-- name: erase_messages
-- Also where the file is not there any more, and only the sentence names the person.
WITH gone AS (
    UPDATE import_batch AS b SET error_message = without_examples(error_message)
    WHERE error_message <> without_examples(error_message)
      AND (seqno IN (SELECT seqno FROM person_batch)
           OR domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
              AND EXISTS (SELECT FROM person_key
                          WHERE lower(normalize(error_message) COLLATE "C") ~ ('(^|[^[:alnum:]])' || lower(pattern COLLATE "C") || '($|[^[:alnum:]])')))
    RETURNING seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items) SELECT %(erasure_id)s, 'sentences of batches', seqno, 1 FROM gone

-- name: erase_events
WITH gone AS (
    UPDATE import_batch_event AS e SET detail = without_examples(detail)
    FROM import_batch AS b
    WHERE b.seqno = e.seqno AND event IN ('failed', 'reopened') AND detail <> without_examples(detail)
      AND (b.seqno IN (SELECT seqno FROM person_batch)
           OR domain_id = %(domain_id)s AND status IN ('executed', 'cancelled')
              AND EXISTS (SELECT FROM person_key
                          WHERE lower(normalize(detail) COLLATE "C") ~ ('(^|[^[:alnum:]])' || lower(pattern COLLATE "C") || '($|[^[:alnum:]])')))
    RETURNING e.seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'events of batches', seqno, count(*) FROM gone GROUP BY seqno

-- name: erase_lanes
-- Where the load of a batch that failed had come to: keys, of a batch that cannot be opened again.
WITH gone AS (
    DELETE FROM import_batch_lane WHERE seqno IN (SELECT seqno FROM person_batch) RETURNING seqno
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'marks of the load', seqno, count(*) FROM gone GROUP BY seqno

-- name: staged
SELECT seqno FROM person_batch WHERE to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL

-- name: erase_files
-- The kept files of the batches, and the staging tables of those that have failed.
WITH gone AS (
    INSERT INTO import_batch_removed (seqno, what, why, finished_at)
    SELECT seqno, what, 'erasure', statement_timestamp()
    FROM person_batch CROSS JOIN (VALUES ('file'), ('staging')) AS sort (what)
    WHERE what = 'file' OR seqno = ANY(%(staged)s)
    ON CONFLICT DO NOTHING
    RETURNING seqno, what
),
told AS (
    INSERT INTO import_batch_event (seqno, event, by, detail)
    SELECT seqno, what || ' not kept', %(by)s, 'somebody whom it named was erased' FROM gone
)
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, CASE what WHEN 'file' THEN 'uploaded files' ELSE 'staging tables' END, seqno, 1 FROM gone

-- name: shared_files
-- The same bytes, that another batch still needs: of another domain, or one that has not ended.
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT DISTINCT %(erasure_id)s::bigint, 'LEFT: uploaded file of another domain or of a batch that has not ended', other.seqno, 1
FROM person_batch JOIN import_batch AS mine USING (seqno) JOIN import_batch AS other USING (file_sha256)
WHERE NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = other.seqno AND what = 'file')

-- name: open_batches
-- Those that had not ended when records were looked for, or have come since.
INSERT INTO erasure_count (erasure_id, place, seqno, items)
SELECT %(erasure_id)s, 'LEFT: batch that has not ended', seqno,
       (SELECT count(*) FROM person_record AS p WHERE p.seqno = b.seqno)
FROM import_batch AS b
WHERE domain_id = %(domain_id)s AND (seqno = ANY(%(open)s) OR status NOT IN ('executed', 'cancelled'))

-- name: unneeded_files
SELECT DISTINCT file_sha256 AS sha256
FROM erasure_count JOIN import_batch AS mine USING (seqno)
WHERE erasure_id = %(erasure_id)s AND place = 'uploaded files'
  AND NOT EXISTS (
      SELECT FROM import_batch AS other
      WHERE other.file_sha256 = mine.file_sha256
        AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = other.seqno AND what = 'file'))

-- name: receipt
SELECT erasure_id, domain.code AS domain, erased_at, by, salt, key_sha256
FROM erasure JOIN domain USING (domain_id)
WHERE erasure_id = %(erasure_id)s

-- name: counts
SELECT place, seqno, items FROM erasure_count WHERE erasure_id = %(erasure_id)s ORDER BY place DESC, seqno

-- name: receipts
SELECT erasure_id FROM erasure ORDER BY erasure_id DESC LIMIT %(limit)s

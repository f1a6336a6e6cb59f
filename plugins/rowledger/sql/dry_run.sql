-- name: create_changes
CREATE TEMPORARY TABLE dry_run_change (
    record_no integer PRIMARY KEY, about text, before jsonb, after jsonb) ON COMMIT DROP

-- name: index_staged
-- The ledger has no statistics about a batch of this moment: the planner takes it for a few records, and would look for
-- each of them among all keys of the chunk.
CREATE INDEX ON {staging} (record_no)

-- name: ledger_of_chunk
SELECT import_record.*
FROM import_record JOIN {staging} AS staged USING (record_no)
WHERE seqno = %(seqno)s AND (%(after)s::text IS NULL OR match_key > %(after)s) AND match_key <= %(upto)s

-- name: records
SELECT record_no, outcome, about, reasons, warnings, change.before, change.after
FROM import_record LEFT JOIN dry_run_change AS change USING (record_no)
WHERE seqno = %(seqno)s AND (%(record_no)s::integer IS NULL OR record_no = %(record_no)s)
  AND (%(outcomes)s::text[] IS NULL OR outcome = ANY(%(outcomes)s))
ORDER BY record_no
LIMIT %(limit)s

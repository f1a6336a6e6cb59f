-- What roll backs have kept of records that the ledger does not have any more. Until now nobody let it go; from now on it
-- goes with the ledger.
SET LOCAL search_path = rowledger, pg_catalog;

UPDATE roll_back_record
SET about = CASE WHEN about IS NOT NULL THEN 'erased' END,
    detail = CASE WHEN detail IS NOT NULL THEN 'erased' END,
    removed = CASE WHEN removed IS NOT NULL THEN jsonb '{}' END
WHERE seqno IN (SELECT seqno FROM import_batch_removed WHERE what = 'ledger' AND finished_at IS NOT NULL);

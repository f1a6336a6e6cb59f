-- Parked records for which nobody waits any more: a person has given them up, or the retention of their domain has.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE parked_record ADD COLUMN given_up_at timestamptz;
ALTER TABLE parked_record
    DROP CONSTRAINT parked_record_outcome,
    DROP CONSTRAINT parked_record_replayed;
-- What is there obeys both already; it is not read again.
ALTER TABLE parked_record
    ADD CONSTRAINT parked_record_outcome CHECK (outcome IN
        ('created', 'updated', 'unchanged', 'historic', 'ignored', 'parked', 'rejected', 'withdrawn', 'given_up')) NOT VALID,
    ADD CONSTRAINT parked_record_replayed CHECK (
        outcome IN ('parked', 'withdrawn', 'given_up') OR replayed_at IS NOT NULL) NOT VALID,
    ADD CONSTRAINT parked_record_given_up CHECK (
        (outcome = 'given_up') = (given_up_at IS NOT NULL)
        AND (outcome <> 'given_up' OR coalesce(jsonb_array_length(reasons), 0) > 0)) NOT VALID;
COMMENT ON COLUMN parked_record.outcome IS
    'What the replay made of it; parked as long as it waits, also when it was replayed and waits for something else now; '
    'withdrawn if its batch was rolled back before; given_up if a person or the retention waits no longer.';
COMMENT ON COLUMN parked_record.reasons IS
    'Of the replay; those of the import are in the ledger. Of what was given up: what it lacked, and why nobody waits.';

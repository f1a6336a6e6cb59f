SET LOCAL search_path = rowledger, pg_catalog;

-- The length of no array is not a number below 1 but null, and a check takes null for true: no reasons passed for some.
ALTER TABLE import_record DROP CONSTRAINT import_record_reject_explained;
ALTER TABLE import_record ADD CONSTRAINT import_record_reject_explained CHECK (
    outcome NOT IN ('rejected', 'ignored', 'parked') OR coalesce(jsonb_array_length(reasons), 0) > 0) NOT VALID;
ALTER TABLE parked_record DROP CONSTRAINT parked_record_explained;
ALTER TABLE parked_record ADD CONSTRAINT parked_record_explained CHECK (
    replayed_at IS NULL OR outcome NOT IN ('rejected', 'ignored', 'parked')
    OR coalesce(jsonb_array_length(reasons), 0) > 0);

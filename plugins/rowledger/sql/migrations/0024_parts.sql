-- A huge file can be worked in parts, a few tasks each at a range of its records.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE import_batch ADD COLUMN parts integer NOT NULL DEFAULT 1 CONSTRAINT import_batch_parts CHECK (parts > 0);
COMMENT ON COLUMN import_batch.parts IS 'In how many parts the file is worked; 1 is in one piece.';
COMMENT ON COLUMN import_batch.validated_records IS
    'How many records have a verdict; of a file worked in one piece the mark: the last of them.';

CREATE TABLE import_batch_part (
    seqno bigint NOT NULL REFERENCES import_batch,
    part integer NOT NULL,
    epoch integer NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    validated integer,
    PRIMARY KEY (seqno, part)
);
COMMENT ON TABLE import_batch_part IS
    'The parts of a file that is worked in more than one: part n of p has the records from records * (n - 1) / p to records * n / p.';
COMMENT ON COLUMN import_batch_part.epoch IS 'Raised by every claim of the part; a worker with an older one writes nothing more.';
COMMENT ON COLUMN import_batch_part.attempts IS 'Claims since the part has last got any further.';
COMMENT ON COLUMN import_batch_part.validated IS 'The mark of validation: the last record of the part with a verdict; null before the first.';

-- Mend here: which rejected record somebody mended in the desk, and which record of which batch it became.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE mended_record (
    child_seqno bigint NOT NULL CONSTRAINT mended_record_child REFERENCES import_batch (seqno),
    child_record_no integer NOT NULL CONSTRAINT mended_record_child_number CHECK (child_record_no > 0),
    seqno bigint NOT NULL CONSTRAINT mended_record_batch REFERENCES import_batch (seqno),
    record_no integer NOT NULL CONSTRAINT mended_record_number CHECK (record_no > 0),
    CONSTRAINT mended_record_pkey PRIMARY KEY (child_seqno, child_record_no)
);
CREATE INDEX mended_record_of ON mended_record (seqno, record_no);
COMMENT ON TABLE mended_record IS
    'A rejected record that was mended in the desk and sent again: the record of another batch that it became.';

-- A record counts as sent again unless the batch that it went into came to nothing: then it can be mended once more.
CREATE VIEW record_sent_again AS
SELECT mended_record.*
FROM mended_record JOIN import_batch AS child ON child.seqno = child_seqno
WHERE child.status <> 'cancelled' AND (child.processed OR child.status <> 'executed')
  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = child_seqno AND finished_at IS NOT NULL);
COMMENT ON VIEW record_sent_again IS 'The mended records whose new batch has not failed and was not cancelled or rolled back.';

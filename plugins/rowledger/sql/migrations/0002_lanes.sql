-- A load runs in lanes, each with a mark of its own; until now a batch had one mark.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE import_batch_lane (
    seqno bigint NOT NULL REFERENCES import_batch,
    lane integer NOT NULL,
    after text COLLATE "C",
    upto text COLLATE "C",
    PRIMARY KEY (seqno, lane)
);
COMMENT ON TABLE import_batch_lane IS 'What one connection of a load still has to do: the staged records with after < match_key <= upto.';
COMMENT ON COLUMN import_batch_lane.after IS 'The mark of loading; null before the first key.';
COMMENT ON COLUMN import_batch_lane.upto IS 'Null behind the last key.';

INSERT INTO import_batch_lane (seqno, lane, after)
SELECT seqno, 1, loaded_key FROM import_batch WHERE loaded_key IS NOT NULL AND NOT processed;

ALTER TABLE import_batch DROP COLUMN loaded_key;

CREATE TABLE import_turn (
    kind text NOT NULL,
    domain_id integer NOT NULL REFERENCES domain,
    seqno bigint NOT NULL REFERENCES import_batch,
    PRIMARY KEY (kind, domain_id)
);
COMMENT ON TABLE import_turn IS 'Whose turn it is: the one batch of a kind and domain whose chunks may be loaded side by side.';

-- Erasing one person: what was erased where, without saying who it was.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE erasure (
    erasure_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    erased_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL,
    salt text NOT NULL,
    key_sha256 text NOT NULL
);
COMMENT ON TABLE erasure IS 'The receipt of the erasure of one person.';
COMMENT ON COLUMN erasure.key_sha256 IS 'SHA-256 of salt and key: who knows the key can see that the receipt is about it.';

CREATE TABLE erasure_count (
    erasure_id bigint NOT NULL REFERENCES erasure,
    place text NOT NULL,
    seqno bigint REFERENCES import_batch,
    items bigint NOT NULL,
    CONSTRAINT erasure_count_once UNIQUE NULLS NOT DISTINCT (erasure_id, place, seqno)
);
COMMENT ON TABLE erasure_count IS 'How much was erased where, of which batch; or was left, where the place says so.';

CREATE TABLE erased_contact (
    contact_id bigint PRIMARY KEY,
    erasure_id bigint NOT NULL REFERENCES erasure
);
COMMENT ON TABLE erased_contact IS 'Contacts that are gone; the ledger still has their numbers.';

CREATE TABLE erased_record (
    seqno bigint NOT NULL REFERENCES import_batch,
    record_no integer NOT NULL,
    erasure_id bigint NOT NULL REFERENCES erasure,
    CONSTRAINT erased_record_once PRIMARY KEY (seqno, record_no)
);
COMMENT ON TABLE erased_record IS 'Records whose cells, values and values before are gone; number, outcome, rule and column stay.';

-- A roll back's record stays as it is, but for what it tells of a person.
CREATE FUNCTION roll_back_record_unnamed(was roll_back_record, becomes roll_back_record) RETURNS boolean LANGUAGE sql STABLE
RETURN to_jsonb(was) - '{about,detail,removed}'::text[] = to_jsonb(becomes) - '{about,detail,removed}'::text[]
    AND (becomes.about IS NOT DISTINCT FROM was.about OR becomes.about = 'erased')
    AND (becomes.detail IS NOT DISTINCT FROM was.detail OR becomes.detail = 'erased')
    AND (becomes.removed IS NOT DISTINCT FROM was.removed OR becomes.removed = '{}'
         OR becomes.removed = jsonb_set(was.removed, '{fields,contact}', 'null'));
DROP TRIGGER roll_back_kept ON roll_back_record;
CREATE TRIGGER roll_back_kept BEFORE DELETE OR TRUNCATE ON roll_back_record
    FOR EACH STATEMENT EXECUTE FUNCTION roll_back_kept();
CREATE TRIGGER roll_back_record_kept BEFORE UPDATE ON roll_back_record FOR EACH ROW
    WHEN (NOT roll_back_record_unnamed(OLD, NEW)) EXECUTE FUNCTION roll_back_kept();

CREATE FUNCTION erasure_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'receipts are never changed'
        USING ERRCODE = '23514', CONSTRAINT = 'erasure_kept';
END $$;
CREATE TRIGGER erasure_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_kept();
CREATE TRIGGER erasure_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON erasure_count
    FOR EACH STATEMENT EXECUTE FUNCTION erasure_kept();

-- Contacts in full: more fields, what an update changed, an order of origins.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE contact
    ADD COLUMN salutation text,
    ADD COLUMN middle_name text,
    ADD COLUMN job_title text,
    ADD COLUMN fax text,
    ADD COLUMN address_line_2 text,
    ADD COLUMN region text,
    ADD COLUMN lead boolean,
    ADD COLUMN roles text[] CONSTRAINT contact_roles_not_empty CHECK (roles <> '{}'),
    ADD COLUMN attributes jsonb
        CONSTRAINT contact_attributes_object CHECK (jsonb_typeof(attributes) = 'object' AND attributes <> '{}');
COMMENT ON COLUMN contact.lead IS 'True: a lead. False: a contact. Null: nobody has said, which counts as a contact.';
COMMENT ON COLUMN contact.roles IS 'A set, in alphabetical order; null if there is none.';
COMMENT ON COLUMN contact.attributes IS 'What templates call attributes.NAME: text, number, boolean, date or a list of texts.';

-- Lists are sets: neither order nor repeats make two of them different. Nothing at all is null.
CREATE FUNCTION as_set(list text[]) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (SELECT array_agg(DISTINCT item COLLATE "C" ORDER BY item COLLATE "C") FROM unnest(list) AS item);

CREATE FUNCTION united(stored text[], given text[]) RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN given <@ stored THEN stored ELSE as_set(stored || given) END;

-- What was stored before an attribute became a list counts as a list of one.
CREATE FUNCTION united(stored jsonb, given jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN stored IS NULL THEN given
    WHEN given IS NULL THEN stored
    ELSE to_jsonb(as_set(ARRAY(SELECT jsonb_array_elements_text(stored || given))))
END;

-- Times are those of transactions, which may commit in another order; entries are counted one after the other.
ALTER TABLE contact_origin ADD COLUMN entry_id bigint;
UPDATE contact_origin SET entry_id = numbered.entry_id
FROM (
    SELECT contact_id, origin_id, row_number() OVER (ORDER BY added_at, seqno, record_no, origin_id) AS entry_id
    FROM contact_origin
) AS numbered
WHERE contact_origin.contact_id = numbered.contact_id AND contact_origin.origin_id = numbered.origin_id;
ALTER TABLE contact_origin
    ALTER COLUMN entry_id SET NOT NULL,
    ALTER COLUMN entry_id ADD GENERATED ALWAYS AS IDENTITY;
SELECT setval(pg_get_serial_sequence('contact_origin', 'entry_id'), coalesce(max(entry_id), 0) + 1, false)
FROM contact_origin;
COMMENT ON TABLE contact_origin IS 'The campaigns a contact came from; the one with the least entry_id is the first.';

ALTER TABLE import_record
    ADD COLUMN before jsonb,
    ADD CONSTRAINT import_record_before_update CHECK (before IS NULL OR outcome = 'updated');
COMMENT ON COLUMN import_record.before IS
    'The fields of the target that the record changed, each with the value it had before; null where there was none.';
CREATE INDEX import_record_target ON import_record (target_id) WHERE target_id IS NOT NULL;

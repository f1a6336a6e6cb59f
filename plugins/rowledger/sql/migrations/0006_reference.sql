-- Reference data that is created, changed and retired; never deleted, its codes never changed, every change recorded.
SET LOCAL search_path = rowledger, pg_catalog;

ALTER TABLE domain ADD COLUMN retired boolean NOT NULL DEFAULT false;
ALTER TABLE contract_phase ADD COLUMN retired boolean NOT NULL DEFAULT false;
ALTER TABLE contract_status ADD COLUMN retired boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN domain.retired IS 'Stays for history, cannot be chosen for new imports.';
COMMENT ON COLUMN contract_phase.retired IS 'Stays for history; no status in use belongs to it.';
COMMENT ON COLUMN contract_status.retired IS
    'Stays for history and for the contracts that have it; for new records its code is unknown, and no timer gives it.';

-- What may be written ------------------------------------------------------------------------------------------

CREATE FUNCTION is_code(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN value COLLATE "C" ~ '^[!-~]{1,64}$';
CREATE FUNCTION is_line_of_text(value text) RETURNS boolean LANGUAGE sql IMMUTABLE
RETURN length(value) BETWEEN 1 AND 255 AND value = btrim(value) AND value IS NFC NORMALIZED
       AND value COLLATE "C" !~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]';

-- NOT VALID: rows from before these rules stay as they are until they are changed.
ALTER TABLE domain
    ADD CONSTRAINT domain_code_form CHECK (is_code(code)) NOT VALID,
    ADD CONSTRAINT domain_name_form CHECK (is_line_of_text(name)) NOT VALID;
ALTER TABLE contract_phase
    ADD CONSTRAINT contract_phase_code_form CHECK (is_code(code)) NOT VALID,
    ADD CONSTRAINT contract_phase_description_form CHECK (is_line_of_text(description)) NOT VALID;
ALTER TABLE contract_status
    ADD CONSTRAINT contract_status_code_form CHECK (is_code(code)) NOT VALID,
    ADD CONSTRAINT contract_status_description_form CHECK (is_line_of_text(description)) NOT VALID,
    -- The initial status is where every contract starts, on its first day: there must be a way on, and no waiting.
    ADD CONSTRAINT contract_status_initial_not_definitive CHECK (NOT (initial AND definitive)) NOT VALID,
    ADD CONSTRAINT contract_status_initial_not_automatic
        CHECK (NOT (initial AND automatic_after_days IS NOT NULL)) NOT VALID,
    ADD CONSTRAINT contract_status_initial_not_retired CHECK (NOT (initial AND retired)) NOT VALID,
    ADD CONSTRAINT contract_status_days_in_a_century CHECK (automatic_after_days <= 36500) NOT VALID;
ALTER TABLE origin
    ADD CONSTRAINT origin_code_form CHECK (is_code(code)) NOT VALID,
    ADD CONSTRAINT origin_name_form CHECK (is_line_of_text(name)) NOT VALID;
ALTER TABLE subscription
    ADD CONSTRAINT subscription_list_id_form CHECK (is_code(list_id)) NOT VALID,
    ADD CONSTRAINT subscription_name_form CHECK (is_line_of_text(name)) NOT VALID,
    ADD CONSTRAINT subscription_display_sequence_sane CHECK (display_sequence BETWEEN 0 AND 1000000) NOT VALID;
-- "@origins", "@subscriptions" and "@lists" are the domain's own and are not kept here.
ALTER TABLE reference_value
    ADD CONSTRAINT reference_value_list_name_form CHECK (is_code(list_name) AND NOT starts_with(list_name, '@')) NOT VALID,
    ADD CONSTRAINT reference_value_form CHECK (is_line_of_text(value)) NOT VALID;

CREATE FUNCTION reference_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'reference data is retired, never deleted'
        USING ERRCODE = '23514', CONSTRAINT = 'reference_kept', TABLE = TG_TABLE_NAME;
END $$;
CREATE FUNCTION reference_code_immutable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'codes of reference data and the domain they belong to never change'
        USING ERRCODE = '23514', CONSTRAINT = 'reference_code_immutable', TABLE = TG_TABLE_NAME;
END $$;
CREATE TRIGGER reference_kept BEFORE DELETE OR TRUNCATE ON domain
    FOR EACH STATEMENT EXECUTE FUNCTION reference_kept();
CREATE TRIGGER reference_kept BEFORE DELETE OR TRUNCATE ON contract_phase
    FOR EACH STATEMENT EXECUTE FUNCTION reference_kept();
CREATE TRIGGER reference_kept BEFORE DELETE OR TRUNCATE ON contract_status
    FOR EACH STATEMENT EXECUTE FUNCTION reference_kept();
CREATE TRIGGER reference_kept BEFORE DELETE OR TRUNCATE ON origin
    FOR EACH STATEMENT EXECUTE FUNCTION reference_kept();
CREATE TRIGGER reference_kept BEFORE DELETE OR TRUNCATE ON subscription
    FOR EACH STATEMENT EXECUTE FUNCTION reference_kept();
CREATE TRIGGER reference_code_immutable BEFORE UPDATE ON domain FOR EACH ROW
    WHEN (NEW.code <> OLD.code) EXECUTE FUNCTION reference_code_immutable();
CREATE TRIGGER reference_code_immutable BEFORE UPDATE ON contract_phase FOR EACH ROW
    WHEN ((NEW.domain_id, NEW.code) <> (OLD.domain_id, OLD.code)) EXECUTE FUNCTION reference_code_immutable();
CREATE TRIGGER reference_code_immutable BEFORE UPDATE ON contract_status FOR EACH ROW
    WHEN ((NEW.domain_id, NEW.code) <> (OLD.domain_id, OLD.code)) EXECUTE FUNCTION reference_code_immutable();
CREATE TRIGGER reference_code_immutable BEFORE UPDATE ON origin FOR EACH ROW
    WHEN ((NEW.domain_id, NEW.code) <> (OLD.domain_id, OLD.code)) EXECUTE FUNCTION reference_code_immutable();
CREATE TRIGGER reference_code_immutable BEFORE UPDATE ON subscription FOR EACH ROW
    WHEN ((NEW.domain_id, NEW.list_id) <> (OLD.domain_id, OLD.list_id)) EXECUTE FUNCTION reference_code_immutable();

-- A status in use belongs to a phase in use of its own domain. The phase's row is locked on both sides, so that
-- nobody retires it while another puts a status into it.
CREATE FUNCTION contract_status_phase() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    phase contract_phase;
BEGIN
    SELECT * INTO phase FROM contract_phase WHERE phase_id = NEW.phase_id FOR SHARE;
    IF phase.domain_id <> NEW.domain_id THEN
        RAISE EXCEPTION 'a contract status belongs to a phase of its own domain'
            USING ERRCODE = '23514', CONSTRAINT = 'contract_status_phase_of_domain';
    ELSIF phase.retired AND NOT NEW.retired THEN
        RAISE EXCEPTION 'a contract status in use cannot belong to a retired phase'
            USING ERRCODE = '23514', CONSTRAINT = 'contract_status_phase_in_use';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER contract_status_phase BEFORE INSERT OR UPDATE ON contract_status
    FOR EACH ROW EXECUTE FUNCTION contract_status_phase();

CREATE FUNCTION contract_phase_retire() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
BEGIN
    IF EXISTS (SELECT FROM contract_status WHERE phase_id = NEW.phase_id AND NOT retired) THEN
        RAISE EXCEPTION 'contract phase % has statuses in use', NEW.code
            USING ERRCODE = '23514', CONSTRAINT = 'contract_phase_in_use';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER contract_phase_retire BEFORE UPDATE ON contract_phase FOR EACH ROW
    WHEN (NEW.retired) EXECUTE FUNCTION contract_phase_retire();

-- Who changed what ---------------------------------------------------------------------------------------------

CREATE TABLE reference_change (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    by text NOT NULL,
    file text,
    domain_id integer REFERENCES domain,
    sort text NOT NULL CONSTRAINT reference_change_sort
        CHECK (sort IN ('domain', 'phase', 'status', 'contract', 'origin', 'subscription', 'value')),
    code text NOT NULL,
    before jsonb,
    after jsonb,
    CONSTRAINT reference_change_is_one CHECK (before IS DISTINCT FROM after)
);
CREATE INDEX reference_change_of ON reference_change (domain_id, sort, code);
COMMENT ON TABLE reference_change IS 'Append-only: every change of reference data, who made it, and what stood there before and after.';
COMMENT ON COLUMN reference_change.by IS 'The setting rowledger.by of the transaction; without it the database role.';
COMMENT ON COLUMN reference_change.file IS 'The reference file that was loaded, if it was one.';

CREATE FUNCTION reference_change_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the record of changes is never changed'
        USING ERRCODE = '23514', CONSTRAINT = 'reference_change_kept';
END $$;
CREATE TRIGGER reference_change_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON reference_change
    FOR EACH STATEMENT EXECUTE FUNCTION reference_change_kept();

-- By triggers, so that a change by hand is recorded too. Arguments: the sort, and the column that holds its code.
CREATE FUNCTION reference_record() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    before jsonb;
    after jsonb;
    given jsonb;
    internal text[] := ARRAY['domain_id', 'phase_id', 'status_id', 'origin_id', 'subscription_id', TG_ARGV[1]];
BEGIN
    IF TG_OP <> 'INSERT' THEN
        before := to_jsonb(OLD);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        after := to_jsonb(NEW);
    END IF;
    IF before IS NOT DISTINCT FROM after THEN
        RETURN NULL;
    END IF;
    given := coalesce(after, before);
    IF TG_ARGV[0] = 'status' THEN
        before := before || jsonb_build_object('phase',
            (SELECT code FROM contract_phase WHERE phase_id = (before ->> 'phase_id')::integer));
        after := after || jsonb_build_object('phase',
            (SELECT code FROM contract_phase WHERE phase_id = (after ->> 'phase_id')::integer));
    END IF;
    INSERT INTO reference_change (by, file, domain_id, sort, code, before, after)
    VALUES (coalesce(nullif(current_setting('rowledger.by', true), ''), session_user),
            nullif(current_setting('rowledger.file', true), ''),
            (given ->> 'domain_id')::integer, TG_ARGV[0], given ->> TG_ARGV[1], before - internal, after - internal);
    RETURN NULL;
END $$;
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON domain
    FOR EACH ROW EXECUTE FUNCTION reference_record('domain', 'code');
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON contract_phase
    FOR EACH ROW EXECUTE FUNCTION reference_record('phase', 'code');
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON contract_status
    FOR EACH ROW EXECUTE FUNCTION reference_record('status', 'code');
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON origin
    FOR EACH ROW EXECUTE FUNCTION reference_record('origin', 'code');
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON subscription
    FOR EACH ROW EXECUTE FUNCTION reference_record('subscription', 'list_id');
CREATE TRIGGER reference_record AFTER INSERT OR UPDATE OR DELETE ON reference_value
    FOR EACH ROW EXECUTE FUNCTION reference_record('value', 'list_name');

-- Everything of Rowledger lives in two schemas: the tables, and one staging table per batch in progress.
CREATE SCHEMA rowledger_staging;
COMMENT ON SCHEMA rowledger_staging IS 'One table per batch between its validation and its close.';

SET LOCAL search_path = rowledger, pg_catalog;

-- Reference data ----------------------------------------------------------------------------------------------

CREATE TABLE domain (
    domain_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    code text NOT NULL CONSTRAINT domain_code_unique UNIQUE,
    name text NOT NULL
);
COMMENT ON TABLE domain IS 'An organisation; codes are unique within it, never globally.';

CREATE TABLE contract_phase (
    phase_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    code text NOT NULL,
    description text NOT NULL,
    CONSTRAINT contract_phase_code_unique UNIQUE (domain_id, code)
);
COMMENT ON TABLE contract_phase IS 'Groups contract statuses for reporting.';

CREATE TABLE contract_status (
    status_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    phase_id integer NOT NULL REFERENCES contract_phase,
    code text NOT NULL,
    description text NOT NULL,
    initial boolean NOT NULL DEFAULT false,
    definitive boolean NOT NULL DEFAULT false,
    churn boolean NOT NULL DEFAULT false,
    automatic_after_days integer,
    CONSTRAINT contract_status_code_unique UNIQUE (domain_id, code),
    CONSTRAINT contract_status_days_positive CHECK (automatic_after_days > 0)
);
CREATE UNIQUE INDEX contract_status_one_initial ON contract_status (domain_id) WHERE initial;
COMMENT ON TABLE contract_status IS 'A result code of a domain.';

CREATE TABLE contract (
    contract_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    form_id text COLLATE "C" NOT NULL,
    sign_up_date date NOT NULL,
    status_id integer REFERENCES contract_status,
    date_result date,
    seqno bigint,
    record_no integer,
    CONSTRAINT contract_form_id_unique UNIQUE (domain_id, form_id),
    CONSTRAINT contract_sign_up_date_sane CHECK (sign_up_date BETWEEN '1900-01-01' AND '2100-12-31'),
    CONSTRAINT contract_form_id_length CHECK (length(form_id) BETWEEN 1 AND 255)
);
COMMENT ON TABLE contract IS
    'A contract, and its current status: the history entry with the greatest (date_result, seqno, record_no).';

CREATE TABLE status_history (
    history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contract_id bigint NOT NULL REFERENCES contract,
    status_id integer NOT NULL REFERENCES contract_status,
    date_result date NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    cause text NOT NULL CONSTRAINT status_history_cause CHECK (cause IN ('initial', 'import', 'timer')),
    seqno bigint,
    record_no integer,
    CONSTRAINT status_history_entry_unique UNIQUE (contract_id, date_result, status_id),
    CONSTRAINT status_history_date_sane CHECK (date_result BETWEEN '1900-01-01' AND '2100-12-31'),
    CONSTRAINT status_history_provenance CHECK ((cause = 'import') = (seqno IS NOT NULL AND record_no IS NOT NULL))
);
COMMENT ON TABLE status_history IS 'Append-only: every status a contract was given, when, why and by which record.';

CREATE VIEW status_chain AS
SELECT history_id, contract_id, status_id, date_result, recorded_at, cause, seqno, record_no,
       lag(status_id) OVER in_order AS previous_status_id,
       lead(history_id) OVER in_order IS NULL AS is_current
FROM status_history
WINDOW in_order AS (PARTITION BY contract_id ORDER BY date_result, seqno NULLS FIRST, record_no NULLS FIRST);
COMMENT ON VIEW status_chain IS 'The history in its order; each entry names the status before it.';

CREATE TABLE origin (
    origin_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    code text NOT NULL,
    name text NOT NULL,
    active boolean NOT NULL DEFAULT true,
    CONSTRAINT origin_code_unique UNIQUE (domain_id, code)
);
COMMENT ON TABLE origin IS 'A campaign a contact came from.';

CREATE TABLE subscription (
    subscription_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    list_id text NOT NULL,
    name text NOT NULL,
    type text NOT NULL CONSTRAINT subscription_type CHECK (type IN ('email', 'mail', 'fax', 'phone', 'mobile')),
    display_sequence integer NOT NULL DEFAULT 0,
    disabled boolean NOT NULL DEFAULT false,
    CONSTRAINT subscription_list_id_unique UNIQUE (domain_id, list_id)
);
COMMENT ON TABLE subscription IS 'A mailing list.';

CREATE TABLE reference_value (
    list_name text NOT NULL,
    value text COLLATE "C" NOT NULL,
    CONSTRAINT reference_value_unique PRIMARY KEY (list_name, value)
);
COMMENT ON TABLE reference_value IS 'The lists that a template column names in "reference": countries, languages, ...';

-- Contacts ----------------------------------------------------------------------------------------------------

CREATE TABLE contact (
    contact_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    domain_id integer NOT NULL REFERENCES domain,
    external_id text COLLATE "C",
    email text COLLATE "C",
    first_name text,
    last_name text,
    company text,
    phone text,
    mobile text,
    street text,
    postal_code text,
    city text,
    country text,
    language text,
    birth_date date,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT contact_birth_date_sane CHECK (birth_date BETWEEN '1900-01-01' AND '2100-12-31')
);
CREATE UNIQUE INDEX contact_external_id_unique ON contact (domain_id, external_id);
CREATE UNIQUE INDEX contact_email_unique ON contact (domain_id, lower(email));
COMMENT ON TABLE contact IS 'A person, found again within a domain by external id, or by email without regard to the case of ASCII letters.';

CREATE TABLE contact_origin (
    contact_id bigint NOT NULL REFERENCES contact,
    origin_id integer NOT NULL REFERENCES origin,
    seqno bigint NOT NULL,
    record_no integer NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (contact_id, origin_id)
);
COMMENT ON TABLE contact_origin IS 'The campaigns a contact came from; the one added first stays the first.';

CREATE TABLE contact_subscription (
    contact_id bigint NOT NULL REFERENCES contact,
    subscription_id integer NOT NULL REFERENCES subscription,
    opted_in boolean NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (contact_id, subscription_id)
);
COMMENT ON TABLE contact_subscription IS 'Where a contact stands with a list now. An opt-out is never overwritten by an import.';

CREATE TABLE subscription_history (
    history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    contact_id bigint NOT NULL REFERENCES contact,
    subscription_id integer NOT NULL REFERENCES subscription,
    opted_in boolean NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    seqno bigint,
    record_no integer
);
CREATE INDEX subscription_history_contact ON subscription_history (contact_id);
COMMENT ON TABLE subscription_history IS 'Append-only: who opted in or out of what, when, by which batch and record.';

-- Batches and their ledger ------------------------------------------------------------------------------------

CREATE TABLE template_version (
    template_hash text PRIMARY KEY,
    name text NOT NULL,
    kind text NOT NULL,
    source text NOT NULL,
    suite_hash text NOT NULL,
    first_used_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE template_version IS 'Every version of a template that a batch was uploaded with, as it was then.';

CREATE TABLE import_batch (
    seqno bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    domain_id integer NOT NULL REFERENCES domain,
    template_hash text NOT NULL REFERENCES template_version,
    file_name text NOT NULL,
    file_path text NOT NULL,
    file_bytes bigint NOT NULL,
    file_sha256 text NOT NULL,
    uploaded_by text NOT NULL,
    uploaded_through text NOT NULL
        CONSTRAINT import_batch_through CHECK (uploaded_through IN ('page', 'api', 'command line', 'feed')),
    uploaded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    status text NOT NULL DEFAULT 'waiting' CONSTRAINT import_batch_status
        CHECK (status IN ('waiting', 'in_progress', 'executed', 'paused', 'cancelled')),
    epoch integer NOT NULL DEFAULT 0,
    reopened integer NOT NULL DEFAULT 0,
    run_id text,
    leased_until timestamptz,
    import_completed boolean NOT NULL DEFAULT false,
    processed boolean NOT NULL DEFAULT false,
    columns jsonb NOT NULL DEFAULT '{}',
    error_rule text,
    error_message text,
    warnings jsonb NOT NULL DEFAULT '[]',
    started_at timestamptz,
    validated_at timestamptz,
    processed_at timestamptz,
    records_in_file integer,
    validated_records integer NOT NULL DEFAULT 0,
    staged_records integer NOT NULL DEFAULT 0,
    loaded_records integer NOT NULL DEFAULT 0,
    loaded_key text COLLATE "C",
    created integer NOT NULL DEFAULT 0,
    updated integer NOT NULL DEFAULT 0,
    unchanged integer NOT NULL DEFAULT 0,
    historic integer NOT NULL DEFAULT 0,
    ignored integer NOT NULL DEFAULT 0,
    parked integer NOT NULL DEFAULT 0,
    rejected integer NOT NULL DEFAULT 0,
    unprocessed integer NOT NULL DEFAULT 0,
    CONSTRAINT import_batch_balanced CHECK (
        status NOT IN ('executed', 'cancelled')
        OR coalesce(records_in_file, 0)
            = created + updated + unchanged + historic + ignored + parked + rejected + unprocessed),
    CONSTRAINT import_batch_processed CHECK (
        NOT processed OR (import_completed AND unprocessed = 0 AND status = 'executed')),
    CONSTRAINT import_batch_failure_explained CHECK (
        status <> 'executed' OR processed OR error_message IS NOT NULL)
);
CREATE INDEX import_batch_unfinished ON import_batch (kind, seqno) WHERE status IN ('waiting', 'in_progress');
CREATE INDEX import_batch_same_file ON import_batch (file_sha256);
COMMENT ON TABLE import_batch IS 'One uploaded file and how far its import has come.';
COMMENT ON COLUMN import_batch.epoch IS 'Raised by every claim; a worker whose epoch is not this one any more writes nothing.';
COMMENT ON COLUMN import_batch.columns IS 'Target field -> the column as the user''s file calls it.';
COMMENT ON COLUMN import_batch.run_id IS 'The Airflow run that last took the batch on.';
COMMENT ON COLUMN import_batch.validated_records IS 'The mark of validation: every record up to this one has a verdict.';
COMMENT ON COLUMN import_batch.loaded_key IS 'The mark of loading: every staged record with a key up to this one is loaded.';

CREATE TABLE import_batch_origin (
    seqno bigint NOT NULL REFERENCES import_batch,
    origin_id integer NOT NULL REFERENCES origin,
    PRIMARY KEY (seqno, origin_id)
);
COMMENT ON TABLE import_batch_origin IS 'Origins named at upload, for every contact of the batch.';

CREATE TABLE import_batch_subscription (
    seqno bigint NOT NULL REFERENCES import_batch,
    subscription_id integer NOT NULL REFERENCES subscription,
    PRIMARY KEY (seqno, subscription_id)
);
COMMENT ON TABLE import_batch_subscription IS 'Lists named at upload, that every contact of the batch is opted in to.';

CREATE TABLE import_batch_event (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seqno bigint NOT NULL REFERENCES import_batch,
    occurred_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL,
    by text NOT NULL,
    detail text
);
CREATE INDEX import_batch_event_seqno ON import_batch_event (seqno);
COMMENT ON TABLE import_batch_event IS 'Who did what to a batch, and when.';

CREATE TABLE import_record (
    seqno bigint NOT NULL,
    record_no integer NOT NULL,
    outcome text NOT NULL CONSTRAINT import_record_outcome CHECK (outcome IN
        ('created', 'updated', 'unchanged', 'historic', 'ignored', 'parked', 'rejected', 'unprocessed')),
    target_id bigint,
    reasons jsonb,
    warnings jsonb,
    raw jsonb,
    recorded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT import_record_once PRIMARY KEY (seqno, record_no),
    CONSTRAINT import_record_reject_explained CHECK (
        outcome NOT IN ('rejected', 'ignored', 'parked') OR jsonb_array_length(reasons) > 0)
);
COMMENT ON TABLE import_record IS 'The ledger: what became of one record of one file.';
COMMENT ON COLUMN import_record.raw IS 'The cells as they stood in the file; kept where the record was not loaded.';

-- A closed batch must say the truth about its ledger, and stays as it is.
CREATE FUNCTION import_batch_close() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    ledger record;
BEGIN
    IF OLD.status IN ('executed', 'cancelled') THEN
        IF NEW.status = 'waiting' AND NEW.reopened = OLD.reopened + 1 THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'import batch % is % and cannot change', OLD.seqno, OLD.status
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_terminal';
    END IF;
    IF NEW.status NOT IN ('executed', 'cancelled') THEN
        RETURN NEW;
    END IF;
    SELECT count(*) FILTER (WHERE outcome = 'created') AS created,
           count(*) FILTER (WHERE outcome = 'updated') AS updated,
           count(*) FILTER (WHERE outcome = 'unchanged') AS unchanged,
           count(*) FILTER (WHERE outcome = 'historic') AS historic,
           count(*) FILTER (WHERE outcome = 'ignored') AS ignored,
           count(*) FILTER (WHERE outcome = 'parked') AS parked,
           count(*) FILTER (WHERE outcome = 'rejected') AS rejected,
           count(*) FILTER (WHERE outcome = 'unprocessed') AS unprocessed,
           count(*) AS records, coalesce(min(record_no), 1) AS first_no, coalesce(max(record_no), 0) AS last_no
    INTO ledger FROM import_record WHERE seqno = NEW.seqno;
    IF (ledger.created, ledger.updated, ledger.unchanged, ledger.historic,
        ledger.ignored, ledger.parked, ledger.rejected, ledger.unprocessed)
       IS DISTINCT FROM (NEW.created, NEW.updated, NEW.unchanged, NEW.historic,
                         NEW.ignored, NEW.parked, NEW.rejected, NEW.unprocessed)
       OR ledger.first_no <> 1 OR ledger.last_no <> ledger.records
       OR ledger.records <> coalesce(NEW.records_in_file, 0) THEN
        RAISE EXCEPTION 'the ledger of import batch % does not balance', NEW.seqno
            USING ERRCODE = '23514', CONSTRAINT = 'import_batch_ledger_balanced';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER import_batch_close BEFORE UPDATE ON import_batch FOR EACH ROW EXECUTE FUNCTION import_batch_close();

CREATE FUNCTION import_batch_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'import batches and their history are never deleted'
        USING ERRCODE = '23514', CONSTRAINT = 'import_batch_kept';
END $$;
CREATE TRIGGER import_batch_keep BEFORE DELETE ON import_batch FOR EACH STATEMENT EXECUTE FUNCTION import_batch_keep();

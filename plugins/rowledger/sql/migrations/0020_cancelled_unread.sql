-- A batch that was cancelled before anybody read it: how many records it has is entered later, once.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE INDEX import_batch_unread ON import_batch (kind, seqno) WHERE status = 'cancelled' AND records_in_file IS NULL;

CREATE OR REPLACE FUNCTION import_batch_close() RETURNS trigger LANGUAGE plpgsql SET search_path = rowledger, pg_catalog AS $$
DECLARE
    ledger record;
    counted CONSTANT text[] := '{records_in_file,unprocessed}';
BEGIN
    IF OLD.status IN ('executed', 'cancelled') THEN
        IF NEW.status = 'waiting' AND NEW.reopened = OLD.reopened + 1 THEN
            RETURN NEW;
        END IF;
        IF OLD.status <> 'cancelled' OR OLD.records_in_file IS NOT NULL OR NEW.records_in_file IS NULL
           OR to_jsonb(NEW) - counted <> to_jsonb(OLD) - counted THEN
            RAISE EXCEPTION 'import batch % is % and cannot change', OLD.seqno, OLD.status
                USING ERRCODE = '23514', CONSTRAINT = 'import_batch_terminal';
        END IF;
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

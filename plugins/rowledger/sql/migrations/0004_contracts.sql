SET LOCAL search_path = rowledger, pg_catalog;

-- A contract may name the contact it was made with. ---------------------------------------------------------------

ALTER TABLE contract ADD COLUMN contact_id bigint CONSTRAINT contract_contact_exists REFERENCES contact;
CREATE INDEX contract_contact ON contract (contact_id) WHERE contact_id IS NOT NULL;
COMMENT ON COLUMN contract.contact_id IS 'The contact the contract was made with, of the same domain.';

-- Timers ----------------------------------------------------------------------------------------------------------

-- Also what makes a daily run quick: which contracts have been given a status is told by the index, not the history.
CREATE UNIQUE INDEX status_history_timer_once ON status_history (contract_id, status_id) WHERE cause = 'timer';
CREATE UNIQUE INDEX status_history_initial_once ON status_history (contract_id) WHERE cause = 'initial';

-- The order of the history: by date; of one date what came by itself, the initial status first, before what imports
-- say of that date, in their order.
CREATE OR REPLACE VIEW status_chain AS
SELECT history_id, contract_id, status_id, date_result, recorded_at, cause, seqno, record_no,
       lag(status_id) OVER in_order AS previous_status_id,
       lead(history_id) OVER in_order IS NULL AS is_current
FROM status_history
WINDOW in_order AS (
    PARTITION BY contract_id ORDER BY date_result, seqno NULLS FIRST, record_no NULLS FIRST, history_id);
COMMENT ON VIEW status_chain IS 'The history in its order; each entry names the status before it.';
COMMENT ON TABLE contract IS
    'A contract, and its current status: the last entry of its history (view status_chain).';

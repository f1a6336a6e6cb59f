INSERT INTO domain (code, name) VALUES ('DEMO', 'Demo');
INSERT INTO reference_value (list_name, value) VALUES ('countries', 'DE'), ('countries', 'FR'), ('countries', 'NL');
INSERT INTO contract_phase (domain_id, code, description) VALUES (1, 'P', 'Phase');
INSERT INTO contract_status (domain_id, phase_id, code, description, initial)
VALUES (1, 1, '10', 'Signed', true), (1, 1, '20', 'Called', false), (1, 1, '30', 'Met', false), (1, 1, '40', 'Won', false);
INSERT INTO contract (domain_id, form_id, sign_up_date, status_id, date_result)
SELECT 1, 'F' || lpad(n::text, 8, '0'), '2026-01-01', 1, '2026-01-01' FROM generate_series(0, %(contracts)s - 1) AS n;
SELECT open_history('status_history', 1, '{2026-01-01}');
INSERT INTO status_history (contract_id, domain_id, status_id, date_result, cause)
SELECT contract_id, 1, 1, '2026-01-01', 'initial' FROM contract;

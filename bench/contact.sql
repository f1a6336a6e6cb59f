CREATE TEMPORARY TABLE lines (
    record_no integer GENERATED ALWAYS AS IDENTITY, external_id text, email text, first_name text, last_name text, company text,
    phone text, mobile text, street text, postal_code text, city text, country text, birth_date text) ON COMMIT DROP;
-- then
COPY lines (external_id, email, first_name, last_name, company, phone, mobile, street, postal_code, city, country, birth_date)
FROM STDIN (FORMAT csv, HEADER)
-- then
INSERT INTO contact (domain_id, external_id, email, first_name, last_name, company, phone, mobile, street, postal_code, city,
                     country, birth_date)
SELECT 1, external_id, email, first_name, last_name, company, phone, mobile, street, postal_code, city, country, birth_date::date
FROM lines
ON CONFLICT (domain_id, external_id) DO UPDATE
SET email = excluded.email, first_name = excluded.first_name, last_name = excluded.last_name, company = excluded.company,
    phone = excluded.phone, mobile = excluded.mobile, street = excluded.street, postal_code = excluded.postal_code,
    city = excluded.city, country = excluded.country, birth_date = excluded.birth_date, updated_at = now();
INSERT INTO import_record (seqno, domain_id, record_no, outcome, target_id)
SELECT %(seqno)s, 1, record_no, CASE WHEN created_at = updated_at THEN 'created' ELSE 'updated' END, contact_id
FROM lines JOIN contact ON domain_id = 1 AND contact.external_id = lines.external_id;

SET LOCAL search_path = rowledger, pg_catalog;

-- When the statement that writes them begins, not when its transaction did: that may have waited for its turn, while
-- another wrote and said a later time.
ALTER TABLE import_record ALTER COLUMN recorded_at SET DEFAULT statement_timestamp();
ALTER TABLE status_history ALTER COLUMN recorded_at SET DEFAULT statement_timestamp();
ALTER TABLE subscription_history ALTER COLUMN recorded_at SET DEFAULT statement_timestamp();

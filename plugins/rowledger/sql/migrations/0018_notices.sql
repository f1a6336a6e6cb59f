-- Being told: what happened to files of feeds and batches, once for everybody who wants to know.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE INDEX import_batch_event_at ON import_batch_event (occurred_at);

CREATE TABLE notice_scope (
    scope text PRIMARY KEY,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE notice_scope IS 'A feed or a domain whose people are told, since when: of nothing that was before.';

CREATE TABLE notice (
    notice_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    scope text NOT NULL REFERENCES notice_scope,
    key text NOT NULL,
    event text NOT NULL CONSTRAINT notice_event CHECK (event IN ('executed', 'failed', 'held', 'missing')),
    occurred_at timestamptz NOT NULL,
    seqno bigint REFERENCES import_batch,
    feed text REFERENCES feed,
    feed_alarm_id bigint REFERENCES feed_alarm,
    CONSTRAINT notice_once UNIQUE (scope, key)
);
COMMENT ON TABLE notice IS 'Something that people are told of: each event once in each scope.';

CREATE TABLE notice_message (
    message_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    scope text NOT NULL REFERENCES notice_scope,
    channel text NOT NULL CONSTRAINT notice_message_channel CHECK (channel IN ('mail', 'webhook')),
    recipient jsonb NOT NULL,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    given_up_at timestamptz,
    trouble text
);
CREATE INDEX notice_message_unsent ON notice_message (next_try_at) WHERE sent_at IS NULL AND given_up_at IS NULL;
COMMENT ON TABLE notice_message IS 'One message with all that was new in a scope; sent at least once, each time under its own id.';

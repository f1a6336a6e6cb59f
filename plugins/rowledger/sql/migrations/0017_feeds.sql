-- Feeds: files that come again and again. What was seen, what was taken, what is missing, what is held, who was told.
SET LOCAL search_path = rowledger, pg_catalog;

CREATE TABLE feed (
    name text PRIMARY KEY,
    kind text NOT NULL,
    domain text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    looked_at timestamptz,
    last_file_at timestamptz,
    trouble text
);
COMMENT ON TABLE feed IS 'What is remembered of a feed; what it is stands in its file.';
COMMENT ON COLUMN feed.since IS 'When it was looked at for the first time: nothing is missing from before.';
COMMENT ON COLUMN feed.trouble IS 'What the last look could not take, in sentences; null if there was nothing.';

CREATE TABLE feed_seen (
    feed text NOT NULL REFERENCES feed,
    name text NOT NULL,
    identity text NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT feed_seen_once PRIMARY KEY (feed, name)
);
COMMENT ON TABLE feed_seen IS 'Files that may still be being written: since when they have looked the same.';

CREATE TABLE feed_file (
    feed_file_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed text NOT NULL REFERENCES feed,
    name text NOT NULL,
    identity text NOT NULL,
    bytes bigint NOT NULL,
    sha256 text NOT NULL,
    seqno bigint NOT NULL REFERENCES import_batch,
    duplicate boolean NOT NULL DEFAULT false,
    limits jsonb NOT NULL DEFAULT '{}',
    records integer,
    rejected integer,
    churn integer,
    taken_at timestamptz NOT NULL DEFAULT now(),
    handled_at timestamptz,
    CONSTRAINT feed_file_once UNIQUE (feed, name, identity)
);
CREATE UNIQUE INDEX feed_file_batch_once ON feed_file (seqno) WHERE NOT duplicate;
CREATE INDEX feed_file_last ON feed_file (feed, taken_at);
CREATE INDEX feed_file_unhandled ON feed_file (feed) WHERE handled_at IS NULL;
COMMENT ON TABLE feed_file IS 'A file of a feed that was taken: written in one transaction with its batch.';
COMMENT ON COLUMN feed_file.identity IS 'Changes whenever the file is written or replaced; what it is made of depends on the place.';
COMMENT ON COLUMN feed_file.seqno IS 'The batch that it became, or that the same bytes had become before.';
COMMENT ON COLUMN feed_file.limits IS 'What was unusual for the feed when the file was taken.';
COMMENT ON COLUMN feed_file.records IS 'How many records it has; this and the next two are of its validation, before anything is loaded.';
COMMENT ON COLUMN feed_file.churn IS 'How many of its accepted records say a churn status.';
COMMENT ON COLUMN feed_file.handled_at IS 'When it was moved, deleted or left in its place, as the feed says.';

CREATE TABLE feed_alarm (
    feed_alarm_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed text NOT NULL REFERENCES feed,
    due_at timestamptz NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    cleared_at timestamptz
);
CREATE UNIQUE INDEX feed_alarm_open_once ON feed_alarm (feed) WHERE cleared_at IS NULL;
COMMENT ON TABLE feed_alarm IS 'A file that was due and had not come.';
COMMENT ON COLUMN feed_alarm.cleared_at IS 'When the file that ended it was taken.';

CREATE TABLE feed_hold (
    seqno bigint PRIMARY KEY REFERENCES import_batch,
    feed text NOT NULL REFERENCES feed,
    held_at timestamptz NOT NULL DEFAULT now(),
    why text NOT NULL,
    asked_until timestamptz
);
COMMENT ON TABLE feed_hold IS 'A batch that was put before a person, once. Its events say who approved or refused it.';
COMMENT ON COLUMN feed_hold.asked_until IS 'The lease of the task that asks.';

CREATE VIEW feed_undecided AS
SELECT seqno, h.feed, h.why, h.held_at, h.asked_until
FROM feed_hold AS h JOIN import_batch AS b USING (seqno)
WHERE b.status = 'paused' AND NOT EXISTS (
    SELECT FROM import_batch_event AS e
    WHERE e.seqno = h.seqno AND e.event IN ('resumed', 'cancelled') AND e.occurred_at > h.held_at);
COMMENT ON VIEW feed_undecided IS 'Batches that were put before a person, and that nobody has resumed or cancelled since.';

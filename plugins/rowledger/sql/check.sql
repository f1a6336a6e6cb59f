-- Each check selects one text per violation; its first line is what it promises.

-- name: conservation
-- A closed batch has exactly one ledger row for every record of its file, until retention removes them.
SELECT 'batch ' || seqno
FROM import_batch
WHERE seqno NOT IN (SELECT seqno FROM ledger_not_kept) AND status IN ('executed', 'cancelled')
  AND coalesce(records_in_file, 0) <> (SELECT count(*) FROM import_record AS r WHERE r.seqno = import_batch.seqno)

-- name: dense_record_numbers
-- The record numbers of a closed batch run from 1 without a gap.
SELECT 'batch ' || seqno
FROM import_batch JOIN import_record USING (seqno, domain_id)
WHERE status IN ('executed', 'cancelled')
GROUP BY seqno
HAVING min(record_no) <> 1 OR max(record_no) <> count(*)

-- name: counts_match_ledger
-- The counts by outcome of every batch are those of its ledger, until retention removes that.
SELECT 'batch ' || b.seqno
FROM import_batch AS b
LEFT JOIN (
    SELECT seqno, jsonb_object_agg(outcome, n) AS counts
    FROM (SELECT seqno, outcome, count(*) AS n FROM import_record GROUP BY seqno, outcome) AS o
    GROUP BY seqno
) AS l USING (seqno)
WHERE seqno NOT IN (SELECT seqno FROM ledger_not_kept) AND coalesce(l.counts, '{}') <> (
    SELECT coalesce(jsonb_object_agg(k, v) FILTER (WHERE v > 0), '{}')
    FROM (VALUES ('created', b.created), ('updated', b.updated), ('unchanged', b.unchanged),
                 ('historic', b.historic), ('ignored', b.ignored), ('parked', b.parked),
                 ('rejected', b.rejected), ('unprocessed', b.unprocessed)) AS given (k, v))

-- name: ledger_has_batch
-- Every ledger row belongs to a batch, and to its domain.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_record AS r
WHERE NOT EXISTS (SELECT FROM import_batch AS b WHERE (b.seqno, b.domain_id) = (r.seqno, r.domain_id))

-- name: ledger_has_place
-- The records of every batch have a volume of the ledger, which is there until all of them are removed, and not longer.
SELECT 'batch ' || b.seqno
FROM import_batch AS b
LEFT JOIN import_batch_removed AS gone ON gone.seqno = b.seqno AND what = 'ledger'
WHERE NOT EXISTS (
      SELECT FROM ledger_volume AS v
      WHERE v.domain_id = b.domain_id AND b.seqno >= first_seqno AND b.seqno < end_seqno
        AND (v.removed_at IS NULL) = (gone.finished_at IS NULL)
        AND (v.removed_at IS NULL) = (to_regclass(format('import_record_%s_%s', first_seqno, v.domain_id)) IS NOT NULL))

-- name: terminal_unchanged
-- No ledger row of a closed batch is younger than its close.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_batch JOIN import_record USING (seqno, domain_id)
WHERE status IN ('executed', 'cancelled') AND recorded_at > processed_at

-- name: refusals_keep_raw_cells
-- A rejected or ignored record of a processed batch keeps its raw cells, until retention or an erasure removes them.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_batch JOIN import_record USING (seqno, domain_id)
WHERE processed AND outcome IN ('rejected', 'ignored', 'parked')
  AND (raw IS NULL
       OR raw = '[]'
          AND NOT EXISTS (SELECT FROM import_batch_removed AS gone WHERE gone.seqno = import_batch.seqno AND what = 'cells')
          AND NOT EXISTS (SELECT FROM erased_record AS gone
                          WHERE (gone.seqno, gone.record_no) = (import_record.seqno, import_record.record_no)))

-- name: erased_is_gone
-- Of a person who was erased there is no contact, and of the records about it and those that named it no cell and no value.
SELECT 'contact ' || contact_id
FROM erased_contact JOIN contact USING (contact_id)
UNION ALL
SELECT 'batch ' || seqno || ' record ' || record_no
FROM erased_record JOIN import_record AS r USING (seqno, record_no) JOIN import_batch AS b USING (seqno, domain_id)
WHERE raw <> '[]' OR reasons <> without_values(reasons) OR r.warnings <> without_values(r.warnings)
   OR kind = 'contact' AND before <> '{}'

-- name: removed_cells_are_gone
-- Of a batch whose cells are removed the ledger keeps neither cells nor values nor examples of refused records.
SELECT 'batch ' || seqno
FROM import_batch_removed AS gone JOIN import_batch AS b USING (seqno)
WHERE what = 'cells' AND gone.finished_at IS NOT NULL
  AND (EXISTS (SELECT FROM import_record AS r
               WHERE r.seqno = gone.seqno AND outcome IN ('rejected', 'ignored', 'parked')
                 AND (raw <> '[]' OR reasons <> without_values(reasons) OR warnings <> without_values(warnings)))
       OR EXISTS (SELECT FROM import_batch_reason AS reason
                  WHERE reason.seqno = gone.seqno AND examples <> without_values(examples))
       OR error_message <> without_examples(error_message))

-- name: removed_of_roll_backs
-- Of records that the ledger does not have any more, roll backs say neither whom they were about nor what they took away.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM roll_back_record JOIN import_batch_removed AS gone USING (seqno)
WHERE what = 'ledger' AND gone.finished_at IS NOT NULL AND (about <> 'erased' OR detail <> 'erased' OR removed <> '{}')

-- name: removed_of_ended
-- Nothing is removed of a batch that has not ended, and no staging table is left where it is said to be removed.
SELECT 'batch ' || seqno
FROM import_batch_removed JOIN import_batch USING (seqno)
WHERE status NOT IN ('executed', 'cancelled')
   OR what = 'staging' AND to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL

-- name: one_history_entry_per_change
-- Every record that entered a status, at once or replayed, has exactly one history entry, and every entry such a record.
-- But for a contract whose creation was rolled back: it took its withdrawn entries with it. And for what is not kept.
SELECT coalesce('batch ' || r.seqno || ' record ' || r.record_no, 'history ' || h.history_id)
FROM (SELECT seqno, record_no, target_id FROM import_record JOIN import_batch USING (seqno, domain_id)
      WHERE kind = 'contract_status' AND outcome IN ('created', 'updated', 'historic')
      UNION ALL
      SELECT seqno, record_no, target_id FROM parked_record
      WHERE kind = 'contract_status' AND outcome IN ('created', 'updated', 'historic')) AS r
FULL JOIN (SELECT history_id, seqno, record_no, contract_id FROM status_history WHERE cause = 'import') AS h
  ON h.seqno = r.seqno AND h.record_no = r.record_no AND h.contract_id = r.target_id
WHERE r.seqno IS NULL AND h.seqno NOT IN (SELECT seqno FROM ledger_not_kept)
   OR h.history_id IS NULL
      AND NOT EXISTS (SELECT FROM status_history AS first WHERE first.contract_id = r.target_id AND had IS NOT NULL)
      AND NOT EXISTS (SELECT FROM roll_back_record AS undone
                      WHERE (undone.seqno, undone.record_no) = (r.seqno, r.record_no) AND result = 'restored'
                        AND (NOT EXISTS (SELECT FROM contract WHERE contract_id = undone.target_id)
                             OR EXISTS (SELECT FROM history_kept JOIN contract USING (domain_id)
                                        WHERE history = 'status_history' AND contract_id = undone.target_id)))

-- name: histories_have_their_target
-- Every entry of a history is of a contract or contact of its domain, with a status or list of it.
SELECT 'status history ' || history_id
FROM status_history AS h
LEFT JOIN contract USING (contract_id) LEFT JOIN contract_status AS status ON status.status_id = h.status_id
WHERE contract.domain_id IS DISTINCT FROM h.domain_id OR status.domain_id IS DISTINCT FROM h.domain_id
UNION ALL
SELECT 'subscription history ' || history_id
FROM subscription_history AS h
LEFT JOIN contact USING (contact_id) LEFT JOIN subscription USING (subscription_id)
WHERE contact.domain_id IS DISTINCT FROM h.domain_id OR subscription.domain_id IS DISTINCT FROM h.domain_id

-- name: histories_have_place
-- The volumes of the histories are the tables that there are.
SELECT history_volume_table(history, domain_id, first_day, end_day)
FROM history_volume
GROUP BY history, domain_id, first_day, end_day
HAVING bool_or(removed_at IS NULL) <> (to_regclass(history_volume_table(history, domain_id, first_day, end_day)) IS NOT NULL)

-- name: what_is_not_kept_was_before
-- What stands for entries that are not kept is the first entry of its contract, and before the years that are kept.
SELECT 'contract ' || first.contract_id
FROM status_history AS first LEFT JOIN history_kept AS kept ON history = 'status_history' AND kept.domain_id = first.domain_id
WHERE had IS NOT NULL
  AND (date_result >= coalesce(first_day, '-infinity')
       OR EXISTS (SELECT FROM status_history AS h
                  WHERE h.contract_id = first.contract_id AND h.history_id <> first.history_id
                    AND (h.date_result, coalesce(h.seqno, 0), coalesce(h.record_no, 0))
                        < (first.date_result, coalesce(first.seqno, 0), coalesce(first.record_no, 0))))

-- name: one_entry_per_record
-- No record has two history entries.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM status_history
WHERE cause = 'import'
GROUP BY seqno, record_no
HAVING count(*) > 1

-- name: current_status_is_last
-- A contract's current status is the last entry of its history.
SELECT 'contract ' || contract_id
FROM contract
LEFT JOIN (SELECT * FROM status_chain WHERE is_current) AS last USING (contract_id)
WHERE (contract.status_id, contract.date_result, contract.seqno, contract.record_no)
      IS DISTINCT FROM (last.status_id, last.date_result, last.seqno, last.record_no)

-- name: parked_as_the_ledger_says
-- Every record that the ledger calls parked can be replayed or was, and no other.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM (SELECT seqno, record_no FROM import_record WHERE outcome = 'parked') AS told
FULL JOIN (SELECT seqno, record_no, kind, domain_id FROM parked_record) AS p USING (seqno, record_no)
LEFT JOIN import_batch AS b USING (seqno)
WHERE told.seqno IS NULL AND seqno NOT IN (SELECT seqno FROM ledger_not_kept)
   OR p.seqno IS NULL OR (p.kind, p.domain_id) IS DISTINCT FROM (b.kind, b.domain_id)

-- name: given_up_is_told
-- Of a batch of which parked records were given up an event says who has done so.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM parked_record AS p
WHERE outcome = 'given_up' AND NOT EXISTS (SELECT FROM import_batch_event AS e WHERE e.seqno = p.seqno AND event = 'given up')

-- name: initial_comes_first
-- A contract's initial status is the first entry that was made in its history.
SELECT 'contract ' || i.contract_id
FROM status_history AS i
WHERE cause = 'initial'
  AND EXISTS (SELECT FROM status_history AS h WHERE h.contract_id = i.contract_id AND h.history_id < i.history_id)

-- name: timers_give_once
-- No timer gave a contract a status that it had been given by a timer, or had had by that day.
SELECT 'history ' || t.history_id
FROM status_history AS t
WHERE cause = 'timer'
  AND EXISTS (SELECT FROM status_history AS h
              WHERE h.contract_id = t.contract_id AND h.status_id = t.status_id AND h.history_id < t.history_id
                AND h.withdrawn_at IS NULL
                AND (h.cause = 'timer' OR h.date_result <= t.date_result))

-- name: timers_give_what_is_due
-- No timer gave a status before its day.
SELECT 'history ' || history_id
FROM status_history
WHERE cause = 'timer' AND date_result > (recorded_at AT TIME ZONE 'UTC')::date

-- name: contact_targets_exist
-- Every contact that a record created or updated exists, unless that was rolled back or the person erased.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_record AS r JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contact' AND outcome IN ('created', 'updated')
  AND NOT EXISTS (SELECT FROM erased_contact WHERE contact_id = target_id)
  AND NOT EXISTS (SELECT FROM contact WHERE contact_id = target_id)
  AND NOT EXISTS (SELECT FROM roll_back_record AS undone
                  WHERE (undone.seqno, undone.record_no) = (r.seqno, r.record_no) AND result = 'restored')

-- name: created_once
-- Nothing was created by two records.
SELECT kind || ' ' || target_id
FROM import_record JOIN import_batch USING (seqno, domain_id)
WHERE outcome = 'created'
GROUP BY kind, target_id
HAVING count(*) > 1

-- name: contract_targets_exist
-- Every contract that a record created or updated exists, unless that was rolled back.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_record AS r JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contract' AND outcome IN ('created', 'updated')
  AND NOT EXISTS (SELECT FROM contract WHERE contract_id = target_id)
  AND NOT EXISTS (SELECT FROM roll_back_record AS undone
                  WHERE (undone.seqno, undone.record_no) = (r.seqno, r.record_no) AND result = 'restored')

-- name: contact_of_domain
-- The contact of a contract belongs to the contract's domain.
SELECT 'contract ' || contract_id
FROM contract JOIN contact USING (contact_id)
WHERE contract.domain_id <> contact.domain_id

-- name: updates_changed_something
-- Every record that updated a contact changed something: fields, each noted with its value before, an origin or a list.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM import_record AS r JOIN import_batch USING (seqno, domain_id)
WHERE kind = 'contact' AND outcome = 'updated' AND coalesce(before, '{}') = '{}'
  AND recorded_at > (SELECT applied_at FROM migration WHERE name = '0005_contacts.sql')  -- nothing was noted before
  AND NOT EXISTS (SELECT FROM erased_contact WHERE contact_id = target_id)
  AND NOT EXISTS (SELECT FROM contact_origin AS o
                  WHERE o.contact_id = target_id AND (o.seqno, o.record_no) = (r.seqno, r.record_no))
  AND NOT EXISTS (SELECT FROM subscription_history AS h
                  WHERE h.contact_id = target_id AND (h.seqno, h.record_no) = (r.seqno, r.record_no))
  AND NOT EXISTS (SELECT FROM history_kept AS kept
                  WHERE history = 'subscription_history' AND kept.domain_id = r.domain_id AND recorded_at < first_day)
  AND NOT EXISTS (SELECT FROM roll_back_record AS undone
                  WHERE (undone.seqno, undone.record_no) = (r.seqno, r.record_no) AND result = 'restored')

-- name: links_have_their_record
-- Every origin, opt-in and opt-out that an import entered belongs to a record that created or updated the contact.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM (
    SELECT contact_id, seqno, record_no FROM contact_origin
    UNION ALL
    SELECT contact_id, seqno, record_no FROM subscription_history WHERE seqno IS NOT NULL
) AS link
WHERE seqno NOT IN (SELECT seqno FROM ledger_not_kept)
  AND NOT EXISTS (SELECT FROM import_record AS r
                  WHERE (r.seqno, r.record_no) = (link.seqno, link.record_no) AND target_id = contact_id
                    AND outcome IN ('created', 'updated'))

-- name: one_first_origin
-- Of the origins of a contact exactly one is the first.
SELECT 'contact ' || contact_id
FROM (SELECT contact_id, rank() OVER (PARTITION BY contact_id ORDER BY entry_id) AS place FROM contact_origin) AS origin
WHERE place = 1
GROUP BY contact_id
HAVING count(*) > 1

-- name: subscription_is_last_entry
-- A contact stands with a list as the last entry of its history says that is not withdrawn.
SELECT 'contact ' || contact_id
FROM contact_subscription AS stands
FULL JOIN (
    SELECT DISTINCT ON (contact_id, subscription_id) contact_id, subscription_id, opted_in
    FROM subscription_history
    WHERE withdrawn_at IS NULL
    ORDER BY contact_id, subscription_id, history_id DESC
) AS last USING (contact_id, subscription_id)
WHERE stands.opted_in IS DISTINCT FROM last.opted_in

-- name: an_opt_out_always_wins
-- No import opted anybody in who had opted out, or entered what was so already.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM (SELECT seqno, record_no, opted_in, lag(opted_in) OVER of_list AS stood
      FROM subscription_history
      WHERE withdrawn_at IS NULL
      WINDOW of_list AS (PARTITION BY contact_id, subscription_id ORDER BY history_id)) AS entry
WHERE seqno IS NOT NULL AND stood IS NOT NULL AND (opted_in OR NOT stood)

-- name: no_staging_left
-- There is no staging table of a processed batch.
SELECT 'batch ' || seqno
FROM import_batch
WHERE processed AND to_regclass('rowledger_staging.batch_' || seqno) IS NOT NULL

-- name: rolled_back_whole
-- A finished roll back has restored or spared every record of its batch that changed something, and no other.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM (
    SELECT seqno, record_no, r.target_id, finished_at
    FROM (SELECT seqno, record_no, target_id FROM import_record WHERE outcome IN ('created', 'updated', 'historic')
          UNION ALL
          SELECT seqno, record_no, target_id FROM parked_record WHERE outcome IN ('created', 'updated', 'historic')) AS r
    JOIN import_batch_roll_back USING (seqno)
) AS told
FULL JOIN roll_back_record AS undone USING (seqno, record_no, target_id)
WHERE told.seqno IS NULL AND seqno NOT IN (SELECT seqno FROM ledger_not_kept)
   OR undone.seqno IS NULL AND finished_at IS NOT NULL

-- name: roll_back_counts
-- The counts of a roll back are those of its records.
SELECT 'batch ' || seqno
FROM import_batch_roll_back AS roll_back
WHERE (restored, spared) <> (SELECT count(*) FILTER (WHERE result = 'restored'), count(*) FILTER (WHERE result = 'spared')
                             FROM roll_back_record AS undone WHERE undone.seqno = roll_back.seqno)

-- name: rolled_back_has_ended
-- Only batches that have ended are rolled back.
SELECT 'batch ' || seqno
FROM import_batch_roll_back JOIN import_batch USING (seqno)
WHERE status NOT IN ('executed', 'cancelled')

-- name: mended_by_a_child
-- A record was mended as a record of a batch that names the first one.
SELECT 'batch ' || child_seqno || ' record ' || child_record_no
FROM mended_record AS mended JOIN import_batch AS child ON child.seqno = child_seqno
WHERE child.parent_seqno IS DISTINCT FROM mended.seqno OR child_record_no > child.records_in_file

-- name: withdrawn_as_rolled_back
-- What a record entered in a history is withdrawn if, and only if, a roll back has restored its target.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM (
    SELECT seqno, record_no, withdrawn_at FROM status_history WHERE cause = 'import'
    UNION ALL
    SELECT seqno, record_no, withdrawn_at FROM subscription_history WHERE seqno IS NOT NULL
) AS entry
LEFT JOIN roll_back_record AS undone USING (seqno, record_no)
WHERE (withdrawn_at IS NOT NULL) <> (result IS NOT DISTINCT FROM 'restored')

-- name: restored_is_gone
-- What a record created, or the origins it added, are not there any more once they are rolled back.
SELECT 'batch ' || undone.seqno || ' record ' || undone.record_no
FROM roll_back_record AS undone JOIN import_batch USING (seqno) JOIN import_record AS r USING (seqno, record_no, domain_id)
WHERE result = 'restored'
  AND (outcome = 'created' AND CASE kind
           WHEN 'contact' THEN EXISTS (SELECT FROM contact WHERE contact_id = undone.target_id)
           WHEN 'contract' THEN EXISTS (SELECT FROM contract WHERE contract_id = undone.target_id)
       END
       OR kind = 'contact' AND EXISTS (
           SELECT FROM contact_origin AS o
           WHERE o.contact_id = undone.target_id AND (o.seqno, o.record_no) = (undone.seqno, undone.record_no)))

-- name: nothing_waits_once_rolled_back
-- No parked record of a batch waits once that is rolled back.
SELECT 'batch ' || seqno || ' record ' || record_no
FROM parked_record JOIN import_batch_roll_back USING (seqno)
WHERE outcome = 'parked' AND finished_at IS NOT NULL

-- name: briefs_are_true
-- What lists filter by and add up says of every batch what the batch itself says.
SELECT DISTINCT 'batch ' || seqno
FROM ((TABLE import_batch_brief EXCEPT TABLE import_batch_in_brief)
      UNION ALL
      (TABLE import_batch_in_brief EXCEPT TABLE import_batch_brief)) AS told

-- name: kept_numbers_are_true
-- The records whose numbers are kept for a reason or a rare outcome of a batch are those that have it.
SELECT DISTINCT 'batch ' || seqno
FROM import_batch_rare_outcome AS kept JOIN import_batch USING (seqno, reopened)
WHERE seqno NOT IN (SELECT seqno FROM ledger_not_kept)
  AND record_nos <> ARRAY(SELECT record_no FROM import_record AS r WHERE r.seqno = kept.seqno AND r.outcome = kept.outcome ORDER BY 1)
UNION ALL
SELECT DISTINCT 'batch ' || seqno
FROM import_batch_reason AS kept JOIN import_batch USING (seqno, reopened)
WHERE cardinality(record_nos) <> least(records, 10000)
   OR seqno NOT IN (SELECT seqno FROM ledger_not_kept) AND EXISTS (SELECT FROM unnest(record_nos) AS one (record_no)
              WHERE NOT EXISTS (SELECT FROM import_record AS r
                                WHERE (r.seqno, r.record_no, r.outcome) = (kept.seqno, one.record_no, kept.outcome)
                                  AND reasons @> jsonb_build_array(jsonb_build_object('rule', rule, 'column', "column"))))

-- name: files_of_feeds
-- A batch came by a feed if, and only if, one file of a feed became it, with its bytes.
SELECT 'batch ' || b.seqno
FROM import_batch AS b
LEFT JOIN feed_file AS f ON f.seqno = b.seqno AND NOT f.duplicate
WHERE (b.uploaded_through = 'feed') <> (f.sha256 IS NOT DISTINCT FROM b.file_sha256)

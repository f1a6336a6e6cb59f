"""``make guards``: the tests are tested. Our own guards are removed one at a time, and some test must go red for each.

    make guards                          all of them, each in a copy of the tree; some minutes
    make guards ARGS="--jobs 2"          two at a time
    make guards ARGS="--only lease"      those with a word in their name

First the tests that are named must be green with nothing removed. A guard whose text is not found is an error: whoever
changes a guard changes its line here.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SECONDS = 240  # a test that hangs has noticed nothing


class Change(NamedTuple):
    """A text that stands in a file exactly once, and what is put in its place."""

    file: str
    text: str
    instead: str


class Guard:
    """A guard: its name, the quickest test that goes red without it, and the changes that remove it."""

    def __init__(self, name: str, test: str, *changes: tuple[str, str, str]) -> None:
        self.name, self.test = name, f"tests/{test}"
        self.changes = [Change(f"plugins/rowledger/{file}", text, instead) for file, text, instead in changes]


_BATCHES, _PIPELINE, _LOADING = "sql/batches.sql", "pipeline.py", "loading/__init__.py"
_TABLES = "sql/migrations/0001_ledger.sql"
_CLOSED = "sql/migrations/0020_cancelled_unread.sql"  # where the trigger import_batch_close was written last
_PROCESS_CLOCK = "__import__('datetime').datetime.now().astimezone()"
_RERUNS, _CONTROL, _LIFE = "postgres/test_reruns.py", "postgres/test_control.py", "postgres/test_batches.py"
_PARTS = "postgres/test_parts.py"
_LEDGER, _PARKED, _DB = "postgres/test_ledger.py", "postgres/test_parked.py", "unit/test_db.py"
_FEEDS, _PLACES, _FEED_TABLES = (
    "postgres/test_feeds.py",
    "unit/test_feeds.py",
    "sql/migrations/0017_feeds.sql",
)
_STORES = "unit/test_stores.py"
_HOUSE, _LOGS, _ERASED = "postgres/test_housekeeping.py", "postgres/test_logs.py", "postgres/test_erasure.py"
_VOLUMES = "postgres/test_volumes.py"
_HISTORIES = "postgres/test_histories.py"

GUARDS = (
    # The fence
    Guard(
        "a claim raises the epoch",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_before_its_close_closes_nothing",
        (_BATCHES, "epoch = epoch + 1, attempts = attempts + 1, waits", "attempts = attempts + 1, waits"),
    ),
    Guard(
        "a chunk checks its epoch",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_before_its_close_closes_nothing",
        (_BATCHES, "\nWHERE seqno = %(seqno)s AND epoch = %(epoch)s AND status = 'in_progress'\n", "\nWHERE seqno = %(seqno)s AND status = 'in_progress'\n"),
    ),
    Guard(
        "a lane's chunk checks its epoch",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_while_loading_writes_nothing_more",
        (_BATCHES, "SELECT seqno FROM import_batch WHERE seqno = %(seqno)s AND epoch = %(epoch)s AND", "SELECT seqno FROM import_batch WHERE seqno = %(seqno)s AND"),
    ),
    Guard(
        "a chunk checks that its batch was not stopped",
        f"{_CONTROL}::test_a_pause_at_any_edge_stops_the_worker_there_and_a_resume_goes_on[contacts]",
        (_BATCHES, "\nWHERE seqno = %(seqno)s AND epoch = %(epoch)s AND status = 'in_progress'\n", "\nWHERE seqno = %(seqno)s AND epoch = %(epoch)s\n"),
    ),
    Guard(
        "a lane's chunk checks that its batch was not stopped",
        f"{_CONTROL}::test_a_lane_stops_when_its_batch_is_paused",
        (_BATCHES, "SELECT seqno FROM import_batch WHERE seqno = %(seqno)s AND epoch = %(epoch)s AND status = 'in_progress'", "SELECT seqno FROM import_batch WHERE seqno = %(seqno)s AND epoch = %(epoch)s"),
    ),
    Guard(
        "whoever claims a batch waits for the chunk at work",
        f"{_CONTROL}::test_a_worker_whose_lease_is_not_over_is_waited_for[lane]",
        (_BATCHES, "SELECT pg_advisory_xact_lock(hashtextextended('rowledger batch', %(seqno)s))", "SELECT %(seqno)s"),
    ),
    Guard(
        "a lane's chunk holds the fence",
        f"{_CONTROL}::test_a_worker_whose_lease_is_not_over_is_waited_for[lane]",
        (_BATCHES, "SELECT pg_advisory_xact_lock_shared(hashtextextended('rowledger batch', %(seqno)s))", "SELECT %(seqno)s"),
    ),
    Guard(
        "the close of a batch is fenced",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_before_its_close_closes_nothing",
        (_PIPELINE, "    with worker.chunk(batch) as cursor:\n        lanes.forget", "    with transaction(worker.connection) as cursor:\n        lanes.forget"),
    ),
    Guard(
        "a loser does not say that the winner's batch waits",
        f"{_LIFE}::test_a_worker_that_meets_trouble_after_a_take_over_leaves_the_batch_alone",
        ("batches.py", "    if read(cursor, batch.seqno).epoch != batch.epoch:\n        raise taken_over(batch)\n    cursor", "    cursor"),
    ),
    Guard(
        "a paused batch is not claimed",
        f"{_CONTROL}::test_a_pause_survives_the_death_of_the_worker",
        ("batches.py", "if batch.status in (BatchStatus.PAUSED, BatchStatus.CANCELLED):", "if False:"),
    ),
    Guard(
        "a batch that is done is not claimed",
        f"{_LIFE}::test_whoever_comes_to_a_batch_that_is_done_changes_nothing",
        ("batches.py", "        if batch.succeeded:\n            return batch\n        if batch.status in", "        if batch.status in"),
    ),
    # Parts of a huge file
    Guard(
        "a claim raises the epoch of its part",
        f"{_PARTS}::test_who_takes_a_part_over_fences_off_its_worker_and_nobody_else",
        (_BATCHES, "UPDATE import_batch_part SET epoch = epoch + 1, attempts", "UPDATE import_batch_part SET attempts"),
    ),
    Guard(
        "the first worker after a rest raises the epoch of the batch",
        f"{_PARTS}::test_a_pause_stops_all_parts_and_a_resume_lets_each_go_on",
        (_BATCHES, "epoch = epoch + CASE WHEN status = 'in_progress' THEN 0 ELSE 1 END", "epoch = epoch"),
    ),
    Guard(
        "a cut raises the epoch of the batch",
        f"{_PARTS}::test_a_worker_that_took_the_whole_and_was_silent_is_fenced_off_by_the_cut",
        (_BATCHES, "SET parts = %(parts)s, epoch = epoch + 1 WHERE", "SET parts = %(parts)s WHERE"),
    ),
    Guard(
        "the mark of a part",
        f"{_PARTS}::test_a_part_goes_on_behind_its_mark",
        (_BATCHES, "validated = coalesce(%(last)s, validated)", "validated = validated"),
    ),
    Guard(
        "a validation is finished by the last part alone",
        f"{_PARTS}::test_parts_in_any_order_end_as_the_whole",
        (_PIPELINE, "        if now.validated_records == now.records_in_file:", "        if True:"),
    ),
    Guard(
        "a batch in parts that failed is opened again on request only",
        f"{_PARTS}::test_a_batch_that_fails_in_one_part_is_opened_again_on_request_only_and_in_one_piece",
        ("batches.py", "    if not retried and (step", "    if False and (step"),
    ),
    Guard(
        "whoever takes the whole starts over",
        f"{_PARTS}::test_whoever_takes_the_whole_fences_off_all_parts_and_starts_over",
        ("batches.py", "            if batch.validated_at is None:\n                _start_over(cursor, batch)\n        cursor", "        cursor"),
    ),
    Guard(
        "a worker that gets further with a part is not counted",
        f"{_PARTS}::test_workers_lost_at_one_part_are_counted_for_it_alone",
        (_BATCHES, "UPDATE import_batch_part SET attempts = 0, validated", "UPDATE import_batch_part SET validated"),
    ),
    # Leases
    Guard(
        "the lease of a claim goes by the database's clock",
        f"{_LIFE}::test_leases_go_by_the_clock_of_the_database",
        (_BATCHES, "    leased_until = now() + make_interval(secs => %(lease_seconds)s)\nWHERE seqno = %(seqno)s\n\n-- name: begun", "    leased_until = %(now)s::timestamptz + make_interval(secs => %(lease_seconds)s)\nWHERE seqno = %(seqno)s\n\n-- name: begun"),
        ("batches.py", '_SQL["claim"], {"seqno": seqno, "run_id": run_id, ', f'_SQL["claim"], {{"seqno": seqno, "run_id": run_id, "now": {_PROCESS_CLOCK}, '),
    ),
    Guard(
        "whether a lease is over goes by the database's clock",
        f"{_LIFE}::test_leases_go_by_the_clock_of_the_database",
        (_BATCHES, "OR leased_until < now() AND (status", "OR leased_until < %(now)s AND (status"),
        ("batches.py", '"limit": limit, "lease_seconds": lease_seconds}', f'"limit": limit, "lease_seconds": lease_seconds, "now": {_PROCESS_CLOCK}}}'),
    ),
    Guard(
        "a chunk renews the lease",
        f"{_LIFE}::test_leases_go_by_the_clock_of_the_database",
        (_BATCHES, "SET leased_until = now() + make_interval(secs => %(lease_seconds)s)\nWHERE seqno = %(seqno)s AND epoch", "SET leased_until = leased_until\nWHERE seqno = %(seqno)s AND epoch"),
    ),
    Guard(
        "a lane's chunk renews the lease",
        f"{_LIFE}::test_leases_go_by_the_clock_of_the_database",
        (_BATCHES, "SET leased_until = now() + make_interval(secs => %(lease_seconds)s), loaded_records", "SET loaded_records"),
    ),
    Guard(
        "a reservation has a lease before anybody claims it",
        f"{_CONTROL}::test_two_runs_at_once_are_given_different_batches_and_do_not_wait_for_each_other",
        (_BATCHES, "SET run_id = %(run_id)s, leased_until = now() + make_interval(secs => %(lease_seconds)s)\nFROM free", "SET run_id = %(run_id)s\nFROM free"),
    ),
    Guard(
        "two runs at once skip what the other takes",
        f"{_CONTROL}::test_two_runs_at_once_are_given_different_batches_and_do_not_wait_for_each_other",
        (_BATCHES, "FOR UPDATE SKIP LOCKED", "FOR UPDATE"),
    ),
    Guard(
        "what waits its turn stays with its run",
        f"{_CONTROL}::test_a_batch_that_waits_its_turn_stays_with_its_run_while_the_run_works",
        (_BATCHES, "OR leased_until < now() AND (status = 'in_progress' OR NOT EXISTS (", "OR leased_until < now() AND (true OR NOT EXISTS ("),
    ),
    Guard(
        "a run ends the sessions of workers that fell silent",
        f"{_CONTROL}::test_a_worker_that_is_stopped_inside_a_chunk_keeps_its_batch_for_a_lease_and_no_longer[given-alone]",
        ("batches.py", "        end_silent(cursor, lease_seconds)\n", ""),
    ),
    Guard(
        "a try ends the session of a worker that fell silent",
        f"{_CONTROL}::test_a_worker_that_is_stopped_inside_a_chunk_keeps_its_batch_for_a_lease_and_no_longer[claimed-lane]",
        ("batches.py", "        end_silent(cursor, lease_seconds, seqno)\n", ""),
    ),
    Guard(
        "whoever waits for a batch looks again who has fallen silent",
        f"{_CONTROL}::test_a_worker_that_goes_on_after_a_statement_of_more_than_its_lease_is_waited_for",
        ("batches.py", '        cursor.execute(_SQL["look_again"])\n', ""),
    ),
    Guard(
        "a worker at work is never ended",
        f"{_CONTROL}::test_a_worker_whose_statement_takes_longer_than_its_lease_is_waited_for",
        (_BATCHES, " AND session.wait_event_type = 'Client'", ""),
    ),
    Guard(
        "a worker is not ended before its lease is over",
        f"{_CONTROL}::test_a_worker_whose_lease_is_not_over_is_waited_for",
        (_BATCHES, "  AND session.state_change < clock_timestamp() - make_interval(secs => %(lease_seconds)s)\n", ""),
    ),
    Guard(
        "a worker that is stopped between two statements lets go of its locks",
        f"{_CONTROL}::test_only_what_waits_for_a_reader_may_keep_a_transaction_open_for_long",
        ("db.py", '"idle_in_transaction_session_timeout": "60s"', '"idle_in_transaction_session_timeout": "0"'),
    ),
    Guard(
        "the server notices that a worker was killed",
        f"{_LIFE}::test_a_worker_that_is_killed_lets_go_of_what_it_holds_while_its_statement_runs",
        ("db.py", '"client_connection_check_interval": "1s"', '"client_connection_check_interval": "0"'),
    ),
    Guard(
        "a batch that loses every worker fails",
        f"{_CONTROL}::test_a_batch_that_loses_every_worker_fails_and_says_so",
        (_PIPELINE, "if lost >= worker.settings.max_attempts:", "if False:"),
    ),
    Guard(
        "a worker that validates a chunk is not counted",
        f"{_CONTROL}::test_one_step_forward_and_the_workers_lost_before_are_forgotten",
        (_BATCHES, "%(records)s, attempts = 0,\n    staged_records", "%(records)s,\n    staged_records"),
    ),
    Guard(
        "a worker that loads a chunk is not counted",
        f"{_CONTROL}::test_one_step_forward_and_the_workers_lost_before_are_forgotten",
        (_BATCHES, "    attempts = 0,\n    created", "    created"),
    ),
    # Marks
    Guard(
        "the mark of validation",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_while_validating_writes_nothing_more",
        (_PIPELINE, "after, upto = batch.validated_records, records.count", "after, upto = 0, records.count"),
    ),
    Guard(
        "the mark of a lane",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_while_loading_writes_nothing_more",
        ("sql/lanes.sql", "SET after = %(key)s WHERE", "SET after = after WHERE"),
    ),
    Guard(
        "lanes are cut",
        f"{_RERUNS}::test_lanes_merge_at_the_same_time",
        ("lanes.py", "    places = [batch.staged_records * share // number for share in range(1, number)]", "    places: list[int] = []"),
    ),
    Guard(
        "lanes are cut once",
        f"{_RERUNS}::test_a_worker_that_was_overtaken_while_loading_writes_nothing_more",
        (_PIPELINE, "        if found:\n            return found\n        loading.lock", "        loading.lock"),
    ),
    # The ledger
    Guard(
        "every batch has a volume for its records (a trigger)",
        f"{_LEDGER}::test_a_batch_is_never_deleted",
        ("sql/migrations/0025_volumes.sql", "    PERFORM open_ledger_volume(NEW.seqno, NEW.domain_id);\n", ""),
    ),
    Guard(
        "a record elsewhere than its batch is refused (a trigger)",
        f"{_VOLUMES}::test_a_batch_cannot_end_with_a_record_in_the_volume_of_another_domain",
        ("sql/migrations/0025_volumes.sql", "AND domain_id <> NEW.domain_id", "AND false"),
    ),
    Guard(
        "two registrars open one volume",
        f"{_VOLUMES}::test_two_who_need_the_same_volume_at_once_open_it_once",
        ("sql/migrations/0025_volumes.sql", "            PERFORM pg_advisory_xact_lock(hashtextextended('rowledger ledger', 25));\n", "            NULL;\n"),
    ),
    # The histories
    Guard(
        "two who enter something open one year",
        f"{_HISTORIES}::test_a_year_that_two_open_at_once_is_opened_once",
        ("sql/migrations/0026_histories.sql", "            PERFORM pg_advisory_xact_lock(hashtextextended('rowledger histories', of_domain));\n", "            NULL;\n"),
    ),
    Guard(
        "no chunk enters anything while years are let go",
        f"{_HISTORIES}::test_imports_wait_until_the_years_are_gone",
        ("histories.py", "for kind in () if trial else _LOCKED[history]:", "for kind in ():"),
    ),
    Guard(
        "what was let go is not entered again",
        f"{_HISTORIES}::test_a_late_status_of_what_is_not_kept_is_ignored_and_says_so",
        ("sql/contract_status.sql", "            WHEN before_history THEN 'before_history'\n", ""),
    ),
    Guard(
        "timers know what a contract had",
        f"{_HISTORIES}::test_timers_know_what_a_contract_had",
        ("sql/timers.sql", "candidate.status_id = ANY(h.had) OR ", ""),
    ),
    Guard(
        "timers give nothing where the history is not kept",
        f"{_HISTORIES}::test_timers_give_nothing_where_the_history_is_not_kept",
        ("sql/timers.sql", " OR h.date_result > due)", ")"),
    ),
    Guard(
        "a contract's first entry that is kept is not rolled back",
        f"{_HISTORIES}::test_a_roll_back_spares_what_it_could_not_give_back",
        ("sql/contract_status.sql", "WHEN mine.history_id IS NULL OR mine.had IS NOT NULL THEN", "WHEN mine.history_id IS NULL THEN"),
    ),
    Guard(
        "the ledger rows of a merge of contacts",
        f"{_LEDGER}::test_a_batch_is_never_deleted",
        ("sql/contact.sql", "    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, before, warnings, reasons)\n", ""),
        ("sql/contact.sql", "    FROM decided\n    ORDER BY record_no\n    RETURNING outcome\n", "    FROM decided\n"),
    ),
    Guard(
        "the ledger rows of a merge of contracts",
        "postgres/test_contract.py::test_a_new_contract_is_created_at_the_initial_status_of_its_sign_up_date",
        ("sql/contract.sql", "    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, before, warnings, reasons)\n", ""),
        ("sql/contract.sql", "    FROM explained\n    ORDER BY record_no\n    RETURNING outcome\n", "    FROM explained\n"),
    ),
    Guard(
        "the ledger rows of a merge of contract statuses",
        "postgres/test_contract_status.py::test_a_status_moves_its_contract_and_enters_the_history",
        ("sql/contract_status.sql", "    INSERT INTO import_record (seqno, record_no, domain_id, outcome, target_id, warnings, reasons)\n", ""),
        ("sql/contract_status.sql", "    FROM explained\n    ORDER BY record_no\n    RETURNING outcome\n", "    FROM explained\n"),
    ),
    Guard(
        "a parked record is kept with its ledger row",
        f"{_PARKED}::test_a_parked_record_names_what_it_waits_for",
        ("loading/contract_status.py", 'written = sql.SQL(",\\n").join([written, sql.SQL(_SQL["park"])])', "pass"),
    ),
    Guard(
        "counts that do not add up are refused (a CHECK)",
        f"{_LEDGER}::test_counts_that_do_not_add_up_are_refused_whatever_the_ledger_says",
        (_TABLES, "status NOT IN ('executed', 'cancelled')\n        OR coalesce", "true\n        OR coalesce"),
    ),
    Guard(
        "counts that are not those of the ledger are refused (a trigger)",
        f"{_LEDGER}::test_the_database_refuses_to_close_a_batch_whose_ledger_does_not_balance",
        (_CLOSED, "       IS DISTINCT FROM (NEW.created, NEW.updated, NEW.unchanged, NEW.historic,\n                         NEW.ignored, NEW.parked, NEW.rejected, NEW.unprocessed)\n", "       IS NULL\n"),
    ),
    Guard(
        "a ledger with a gap is refused (the trigger)",
        f"{_LEDGER}::test_the_database_refuses_to_close_a_batch_whose_ledger_does_not_balance",
        (_CLOSED, "OR ledger.first_no <> 1 OR ledger.last_no <> ledger.records\n", "\n"),
    ),
    Guard(
        "a batch that has ended stays as it ended",
        f"{_LEDGER}::test_a_closed_batch_cannot_be_changed",
        (_CLOSED, "            RAISE EXCEPTION 'import batch % is % and cannot change', OLD.seqno, OLD.status\n                USING ERRCODE = '23514', CONSTRAINT = 'import_batch_terminal';", "            RETURN NEW;"),
    ),
    Guard(
        "batches are never deleted",
        f"{_LEDGER}::test_a_batch_is_never_deleted",
        (_TABLES, "CREATE TRIGGER import_batch_keep BEFORE DELETE ON import_batch FOR EACH STATEMENT EXECUTE FUNCTION import_batch_keep();", ""),
    ),
    Guard(
        "what lists add up follows every batch (a trigger)",
        "desk/test_lists.py::test_totals_are_those_of_the_batches_whatever_becomes_of_them",
        ("sql/migrations/0016_brief.sql", "CREATE TRIGGER import_batch_keep_brief AFTER INSERT OR UPDATE ON import_batch\n", "CREATE TRIGGER import_batch_keep_brief AFTER INSERT ON import_batch\n"),
    ),
    Guard(
        "what lists add up follows origins (a trigger)",
        "desk/test_lists.py::test_totals_are_those_of_the_batches_whatever_becomes_of_them",
        ("sql/migrations/0016_brief.sql", "CREATE TRIGGER import_batch_keep_brief AFTER INSERT OR UPDATE ON import_batch_origin\n    FOR EACH ROW EXECUTE FUNCTION import_batch_keep_brief();", ""),
    ),
    Guard(
        "a mended record is sent once",
        "desk/test_mend.py::test_a_record_is_sent_once_unless_what_became_of_it_came_to_nothing",
        ("mending.py", "        _check(cursor, batch, numbers)\n", "        pass\n"),
    ),
    Guard(
        "a refusal has reasons",
        f"{_LEDGER}::test_a_reject_without_a_reason_is_refused",
        ("sql/migrations/0025_volumes.sql", "        outcome NOT IN ('rejected', 'ignored', 'parked') OR coalesce(jsonb_array_length(reasons), 0) > 0) NOT VALID;", "        true);"),
    ),
    Guard(
        "a batch is not closed before it is loaded",
        f"{_LIFE}::test_a_batch_is_not_closed_before_it_is_loaded_nor_loaded_before_it_is_validated",
        (_PIPELINE, "    if batch.loaded_records != batch.staged_records:", "    if False:"),
    ),
    Guard(
        "the cells of what is refused while loading, at the close",
        "postgres/test_hostile_files.py::test_a_refused_record_keeps_its_cells",
        (_PIPELINE, "        if ledger.lacks_raw(worker.connection, batch):\n", "        if False:\n"),
    ),
    Guard(
        "the cells of what is refused while loading, after a cancel",
        f"{_CONTROL}::test_a_cancel_at_any_edge_keeps_what_is_written_and_balances_the_ledger[result_codes]",
        (_PIPELINE, "        _add_raw_cells(worker, batch, fenced)\n", "        pass\n"),
    ),
    Guard(
        "a batch that fails says what it did not reach",
        "postgres/test_hostile_files.py::test_a_file_with_half_of_its_records_wrong_is_loaded_and_with_more_is_not",
        (_PIPELINE, "unprocessed = ledger.add_unprocessed(cursor, now, now.records_in_file or 0)", "unprocessed = 0"),
    ),
    Guard(
        "a batch that is cancelled says what it did not reach",
        f"{_CONTROL}::test_a_cancel_at_any_edge_keeps_what_is_written_and_balances_the_ledger[result_codes]",
        ("control.py", "unprocessed = ledger.add_unprocessed(cursor, batch, batch.records_in_file or 0)", "unprocessed = 0"),
    ),
    Guard(
        "records are recorded when they are written",
        f"{_LEDGER}::test_what_waited_for_its_turn_is_recorded_when_it_was_written",
        ("sql/migrations/0025_volumes.sql", "    recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),", "    recorded_at timestamptz NOT NULL DEFAULT now(),"),
    ),
    Guard(
        "statuses are recorded when they are written",
        f"{_LEDGER}::test_what_waited_for_its_turn_is_recorded_when_it_was_written",
        ("sql/migrations/0026_histories.sql", "recorded_at timestamptz NOT NULL DEFAULT statement_timestamp(),\n    cause", "recorded_at timestamptz NOT NULL DEFAULT now(),\n    cause"),
    ),
    # Others at the same time
    Guard(
        "chunks of a kind and domain come one after the other",
        f"{_RERUNS}::test_batches_of_one_kind_and_domain_load_chunk_by_chunk_in_turns[result_codes]",
        ("sql/loading.sql", "SELECT pg_advisory_xact_lock(hashtextextended(%(kind)s, %(domain_id)s))", "SELECT %(kind)s, %(domain_id)s"),
    ),
    Guard(
        "lanes of two batches do not wait for each other in a circle",
        f"{_RERUNS}::test_batches_of_one_kind_and_domain_load_chunk_by_chunk_in_turns[result_codes]",
        (_LOADING, '        cursor.execute("ROLLBACK TO SAVEPOINT turn")\n', ""),
    ),
    Guard(
        "a replay waits for its turn",
        f"{_PARKED}::test_a_replay_waits_while_another_chunk_of_its_kind_and_domain_is_loaded",
        ("replay.py", "        loading.lock(cursor, batch)\n", ""),
    ),
    Guard(
        "of a replay and whoever gives up, one comes to a record",
        f"{_PARKED}::test_what_a_replay_has_come_to_is_not_given_up",
        ("giving_up.py", "    loading.lock(cursor, batch)\n", ""),
    ),
    Guard(
        "what exists by now is not given up",
        f"{_PARKED}::test_what_exists_by_now_is_left_to_the_replay",
        ("sql/parked.sql", "      AND NOT {exists_now}\n", "      AND {exists_now} IS NOT NULL\n"),
    ),
    Guard(
        "what waits in a batch that is being rolled back is not given up",
        f"{_PARKED}::test_a_roll_back_that_is_asked_for_comes_before_the_retention",
        ("sql/parked.sql", "      AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = %(seqno)s)\n    ORDER", "    ORDER"),
        ("sql/parked.sql", "  AND NOT EXISTS (SELECT FROM import_batch_roll_back AS r WHERE r.seqno = b.seqno)\nORDER BY seqno\n\n-- name: is_rolled_back", "ORDER BY seqno\n\n-- name: is_rolled_back"),
    ),
    Guard(
        "an event is kept with what is given up",
        f"{_PARKED}::test_what_was_killed_while_giving_up_is_done_by_whoever_asks_again",
        ("giving_up.py", '            batches.note(cursor, seqno, "given up", by, f"{waited}: {why}")\n', ""),
    ),
    Guard(
        "timers wait for their turn",
        "postgres/test_timers.py::test_an_import_waits_for_a_run_that_gives_to_its_contracts",
        ("timers.py", '    cursor.execute(queries("loading")["lock"], {"kind": "contract_status", "domain_id": domain["domain_id"]})\n', ""),
    ),
    Guard(
        "a reference file waits for an import of contracts",
        "postgres/test_reference.py::test_contracts_of_a_reference_load_and_of_an_import_at_the_same_moment_know_of_each_other",
        ("reference.py", '    cursor.execute(queries("loading")["lock"], {"kind": "contract", "domain_id": domain_id})\n', ""),
    ),
    Guard(
        "files go in the order of their upload",
        f"{_CONTROL}::test_a_batch_that_waits_its_turn_stays_with_its_run_while_the_run_works",
        (_BATCHES, "  AND (leased_until >= now()\n       OR status = 'waiting'", "  AND (false\n       OR status = 'waiting'"),
    ),
    Guard(
        "two uploads of one file come one after the other",
        f"{_LIFE}::test_of_two_uploads_of_one_file_at_once_the_second_is_told_of_the_first",
        ("batches.py", '            cursor.execute(_SQL["alone_with_file"], {"sha256": upload.sha256})\n', "            pass\n"),
    ),
    Guard(
        "whoever has a batch leaves room for who refers to it",
        f"{_PARKED}::test_a_replay_does_not_wait_for_whoever_has_the_fence_and_waits_for_their_turn[given up]",
        (_BATCHES, "FOR NO KEY UPDATE OF import_batch", "FOR UPDATE OF import_batch"),
    ),
    Guard(
        "a roll back keeps imports out",
        "postgres/test_roll_back.py::test_a_chunk_waits_for_imports_of_every_kind_that_it_could_meet",
        ("roll_back.py", "        loading.lock_out(cursor, batch)\n", ""),
    ),
    Guard(
        "what a roll back did stays as it is",
        "postgres/test_roll_back.py::test_what_a_roll_back_did_cannot_be_changed",
        ("sql/migrations/0022_erasure.sql", "CREATE TRIGGER roll_back_kept BEFORE DELETE OR TRUNCATE ON roll_back_record\n    FOR EACH STATEMENT EXECUTE FUNCTION roll_back_kept();", ""),
    ),
    # Trouble
    Guard(
        "a chunk that was broken off is done again",
        f"{_LIFE}::test_a_chunk_that_the_database_broke_off_is_done_again_up_to_five_times",
        (_PIPELINE, "CHUNK_TRIES = 5", "CHUNK_TRIES = 1"),
    ),
    Guard(
        "nothing is done again without a connection",
        f"{_LIFE}::test_what_is_lost_with_its_connection_is_not_done_again",
        (_PIPELINE, "            if worker.connection.closed:\n                raise\n", ""),
    ),
    Guard(
        "a deadlock is tried again",
        f"{_DB}::test_what_time_mends_is_tried_again",
        ("db.py", '("08", "40", "53",', '("08", "53",'),
    ),
    Guard(
        "a full disk is tried again",
        f"{_DB}::test_what_time_mends_is_tried_again",
        ("db.py", '"40", "53", "57",', '"40", "57",'),
    ),
    Guard(
        "a lost connection is tried again",
        f"{_DB}::test_no_answer_from_a_server_is_tried_again",
        ("db.py", "if isinstance(error, _OF_CALLS):", "if True:"),
    ),
    Guard(
        "whoever may make no schemas can migrate once more",
        "postgres/test_least_rights.py::test_migrating_once_more_needs_no_more_rights",
        ("db.py", "        if not cursor.fetchone():\n            cursor.execute(\"CREATE SCHEMA", "        if True:\n            cursor.execute(\"CREATE SCHEMA"),
    ),
    Guard(
        "what a chunk did is undone when one of its values is refused",
        f"{_LIFE}::test_values_that_the_database_refuses_are_rejected_alone",
        (_LOADING, "        with savepoint(cursor):\n            return loader(batch.kind).merge", "        if True:\n            return loader(batch.kind).merge"),
    ),
    Guard(
        "a refused value is narrowed down to its record",
        f"{_LIFE}::test_values_that_the_database_refuses_are_rejected_alone",
        (_LOADING, "        middle = _middle_key(cursor, staging.table(batch), batch, after, upto)\n", "        middle = None\n"),
    ),
    # Feeds
    Guard(
        "a file of a feed is taken once",
        f"{_FEEDS}::test_without_that_lock_the_database_still_lets_one_of_them_take_a_file",
        (_FEED_TABLES, "CONSTRAINT feed_file_once UNIQUE (feed, name, identity)", "CONSTRAINT feed_file_once CHECK (bytes >= 0)"),
    ),
    Guard(
        "a file that could not be moved is not taken for gone",
        f"{_FEEDS}::test_a_taken_file_that_could_not_be_moved_stays_to_be_moved_when_others_are_taken[move-a.csv]",
        ("feeds/arrivals.py", "        if found is gone and not whole:\n            continue\n", ""),
    ),
    Guard(
        "a file and its batch are entered together",
        f"{_FEEDS}::test_whoever_is_killed_on_the_way_the_next_look_ends_it_and_there_is_one_batch[within_the_transaction-move]",
        ("batches.py", "        if also:\n            also(cursor, seqno)\n        return seqno", "    if also:\n        with transaction(connection) as cursor:\n            also(cursor, seqno)\n    return seqno"),
    ),
    Guard(
        "a file that is replaced while it is read is not taken",
        f"{_PLACES}::test_a_file_that_changes_while_it_is_read_is_noticed[replaced]",
        ("feeds/places.py", "            self._check(found, after)\n", ""),
        ("feeds/places.py", "            if (before.st_ctime_ns, before.st_size) != (after.st_ctime_ns, after.st_size):\n                raise changed(found)\n", ""),
        ("feeds/places.py", "            self._check(found, os.stat(found.name, dir_fd=folder, follow_symlinks=False))\n", ""),
    ),
    Guard(
        "a file that was moved by mistake is put back",
        f"{_PLACES}::test_a_file_replaced_between_the_last_look_and_its_move_is_put_back",
        ("feeds/places.py", "if _identity(moved) != found.identity:", "if False:"),
    ),
    Guard(
        "a file of a store that was renamed by mistake is put back",
        f"{_STORES}::test_a_file_replaced_right_before_it_is_renamed_is_put_back",
        ("feeds/stores.py", "if _found(found.name, self._fs.info(there)).identity != found.identity:", "if False:"),
    ),
    Guard(
        "an object of a store that was replaced while it was copied is not removed",
        f"{_STORES}::test_an_object_replaced_while_it_is_copied_is_not_removed",
        ("feeds/stores.py", "        self._check(found)\n        self._fs.rm_file", "        self._fs.rm_file"),
    ),
    Guard(
        "the server of a store is known by its host key",
        "airflow/test_stores.py::test_an_sftp_server_is_known_by_its_host_key",
        ("airflow/stores.py", """f"* {' '.join(parts)}".encode()""", "None"),
        ("airflow/stores.py", 'said.get("known_hosts", ())', "None"),
    ),
    Guard(
        "at a store that is gone no file is tried one by one",
        f"{_FEEDS}::test_at_a_place_that_is_gone_no_other_file_is_tried_and_the_next_feed_is",
        ("feeds/arrivals.py", "        except PlaceAway:  # the next one would wait in vain, too\n            raise\n", ""),
    ),
    Guard(
        "links are not followed",
        f"{_PLACES}::test_a_link_put_in_the_place_of_a_file_is_not_followed",
        ("feeds/places.py", "os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK", "os.O_RDONLY | os.O_NONBLOCK"),
    ),
    Guard(
        "an unusual batch is held",
        f"{_FEEDS}::test_many_churn_statuses_are_unusual",
        (_PIPELINE, "        unusual.hold(cursor, batches.read(cursor, batch.seqno))\n", ""),
    ),
    Guard(
        "an event is told once",
        "postgres/test_notices.py::test_what_is_new_becomes_one_message_for_each_channel_and_each_event_is_told_once",
        ("sql/migrations/0018_notices.sql", "CONSTRAINT notice_once UNIQUE (scope, key)", "CONSTRAINT notice_once CHECK (key <> '')"),
    ),
    # What is removed, and what is not said
    Guard(
        "housekeeping takes the fence before it decides",
        f"{_HOUSE}::test_whoever_is_at_a_batch_is_waited_for_and_what_they_have_done_counts",
        ("housekeeping.py", "        _fence(cursor, seqnos)\n", ""),
    ),
    Guard(
        "what is decided about a ledger is decided beside no roll back",
        f"{_VOLUMES}::test_a_roll_back_that_is_asked_for_right_before_it_is_decided_knows_what_came_later",
        ("sql/housekeeping.sql", "WHERE x.domain_id = %(domain_id)s AND finished_at IS NULL))\n", "WHERE false))\n"),
    ),
    Guard(
        "whoever decides about a ledger waits for whoever asks for a roll back",
        f"{_VOLUMES}::test_whoever_decides_waits_for_whoever_is_asking_for_a_roll_back",
        ("housekeeping.py", '            _one_decides(cursor, asked["domain_id"])\n', "            pass\n"),
    ),
    Guard(
        "whoever asks for a roll back waits for whoever decides about a ledger",
        f"{_VOLUMES}::test_whoever_asks_for_a_roll_back_waits_for_whoever_decides",
        ("roll_back.py", '            cursor.execute(_SQL["one_decides"], {"domain_id": batch.domain_id})\n', ""),
    ),
    Guard(
        "what roll backs have kept goes with the ledger",
        f"{_VOLUMES}::test_what_roll_backs_have_kept_goes_with_the_ledger_and_what_they_did_stays",
        ("housekeeping.py", '_run, worker, one["seqno"], ("strip_roll_back",)', '_run, worker, one["seqno"], ()'),
    ),
    Guard(
        "a volume is dropped by one of two who keep house",
        f"{_VOLUMES}::test_of_two_who_keep_house_at_once_the_second_finds_the_volume_gone",
        ("sql/housekeeping.sql", "AND first_seqno = %(first_seqno)s AND removed_at IS NULL\n", "AND first_seqno = %(first_seqno)s\n"),
    ),
    Guard(
        "years are let go by one of two who keep house",
        f"{_HISTORIES}::test_of_two_who_keep_house_at_once_the_second_finds_the_years_gone",
        ("histories.py", 'if (history, due["first_day"]) not in now_due:', "if False:"),
    ),
    Guard(
        "a file is looked for among the batches right before it goes",
        f"{_HOUSE}::test_a_file_that_is_uploaded_again_while_the_others_are_removed_stays[folder-registered]",
        ("batches.py", '        if found["needed"]:\n            return False\n', ""),
    ),
    Guard(
        "a file that was kept again does not go",
        f"{_HOUSE}::test_a_file_that_is_uploaded_again_while_the_others_are_removed_stays[folder-about to be]",
        ("batches.py", "if kept_before is not None and", "if False and"),
    ),
    Guard(
        "no batch is made of a file that was let go",
        f"{_LIFE}::test_an_upload_whose_file_is_let_go_at_that_moment_is_told_to_come_again[folder]",
        ("batches.py", "if not upload.is_there:", "if False:"),
    ),
    Guard(
        "a file that another batch needs stays",
        f"{_HOUSE}::test_a_file_stays_as_long_as_one_of_its_batches_needs_it",
        ("sql/housekeeping.sql", "bool_or(b.seqno IS NOT NULL AND gone.seqno IS NULL)", "bool_and(b.seqno IS NOT NULL AND gone.seqno IS NULL)"),
        ("batches.py", 'if found["needed"]:', "if False:"),
    ),
    Guard(
        "the files of another database are not removed",
        f"{_HOUSE}::test_a_folder_that_belongs_to_another_database_is_not_emptied",
        ("housekeeping.py", "if vanished and len(some) >= FEW_FILES", "if False and len(some) >= FEW_FILES"),
    ),
    Guard(
        "a batch that is not whole is not claimed",
        f"{_HOUSE}::test_a_failed_batch_can_be_opened_again_until_its_staging_is_removed",
        ("batches.py", "if gone := rows(cursor", "if gone := False and rows(cursor"),
    ),
    Guard(
        "a key that somebody else has now names nobody who is erased",
        f"{_ERASED}::test_keys_that_only_look_alike_and_keys_that_went_to_others_name_nobody",
        ("sql/erasure.sql", "        AND (external_id IN (told, key) OR lower(other.email) = lower(key COLLATE \"C\")))\n", "        AND false)\n"),
    ),
    Guard(
        "a contact that was rolled back leads to others that were",
        f"{_ERASED}::test_a_contact_that_was_rolled_back_is_found_by_every_key_of_the_person",
        ("erasure.py", "        added = cursor.rowcount\n", "        added = 0\n"),
    ),
    Guard(
        "an email that two people had does not lead from one to the other",
        f"{_ERASED}::test_an_email_that_two_people_had_leads_to_no_other_key_of_the_second",
        ("sql/erasure.sql", "OR bool_and(external_id IS NULL)\n", "OR true\n"),
    ),
    Guard(
        "nothing is erased before all files were searched",
        f"{_ERASED}::test_a_batch_that_fails_while_files_are_searched_is_searched_as_well",
        ("erasure.py", "    if not search.covers(", "    if False and not search.covers("),
    ),
    Guard(
        "the driver's text is not behind our errors",
        f"{_DB}::test_what_time_mends_is_tried_again",
        ("db.py", "from None  # whoever logs this", "from error  # whoever logs this"),
    ),
    Guard(
        "an error of ours is logged without its message",
        f"{_LOGS}::test_an_error_of_ours_is_logged_with_its_place_and_without_its_message[a value in an error]",
        (_PIPELINE, "log.error(\"Import batch %s: Rowledger itself failed\\n%s\", batch.seqno, where(error))", "log.exception(\"Import batch %s\", batch.seqno)"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """How a test ended: ``green``, ``red``, or ``error`` if it could not be run; what it said, and how long it took."""

    colour: str
    said: str
    seconds: float


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """A copy of the tree, without what is made of it."""
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "node_modules")
        yield shutil.copytree(ROOT, Path(folder) / "tree", ignore=left_out)


@contextlib.contextmanager
def removed(tree: Path, guard: Guard) -> Iterator[None]:
    """A copy of the tree without a guard, for as long as the context lasts. Raises LookupError."""
    before = {change.file: (tree / change.file).read_text(encoding="utf-8") for change in guard.changes}
    try:
        for change in guard.changes:
            now = (tree / change.file).read_text(encoding="utf-8")
            if now.count(change.text) != 1:
                raise LookupError(f"{change.file} has {now.count(change.text)} times: {change.text}")
            (tree / change.file).write_text(now.replace(change.text, change.instead), encoding="utf-8")
        yield
    finally:
        for file, text in before.items():
            (tree / file).write_text(text, encoding="utf-8")


def run(tree: Path, *tests: str) -> Verdict:
    """Run tests of a copy of the tree, up to the first that fails."""
    began = time.monotonic()
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--basetemp"]
    environment = os.environ | {
        "PYTHONPATH": str(tree / "plugins"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "COLUMNS": "400",
    }
    try:
        done = subprocess.run([*command, str(tree.parent / "temporary"), *tests], cwd=tree, env=environment,
                              capture_output=True, text=True, timeout=SECONDS * len(tests))  # fmt: skip
    except subprocess.TimeoutExpired:
        return Verdict("error", f"it did not end within {SECONDS} seconds", time.monotonic() - began)
    said, summary = done.stdout, done.stdout.strip().rpartition("\n")[2]
    colour = "error"
    if done.returncode == 0:
        colour = "green"
    elif done.returncode == 1 and " failed" in summary:  # an error alone is one of the set-up
        colour = "red"
    noticed = re.search(r"^FAILED .*? - (.*)", said, re.MULTILINE)
    told = said[-3000:] + done.stderr[-1000:] if colour == "error" else noticed[1] if noticed else ""
    return Verdict(colour, told, time.monotonic() - began)


def without(tree: Path, guard: Guard) -> Verdict:
    """How the test of a guard ends without the guard."""
    try:
        with removed(tree, guard):
            return run(tree, guard.test)
    except LookupError as error:
        return Verdict("error", str(error), 0)


def main() -> int:
    asked = _arguments()
    chosen = [guard for guard in GUARDS if re.search(asked.only, guard.name)]
    with contextlib.ExitStack() as stack:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for _ in range(asked.jobs):
            trees.put(stack.enter_context(copied()))
        pool = stack.enter_context(ThreadPoolExecutor(asked.jobs))

        def check(guard: Guard | None, tests: list[str]) -> Verdict:
            tree = trees.get()
            try:
                verdict = without(tree, guard) if guard else run(tree, *tests)
            finally:
                trees.put(tree)
            if guard:
                print(f"{verdict.colour:<6} {verdict.seconds:5.1f} s  {guard.name}", flush=True)
            return verdict

        tests = sorted({guard.test for guard in chosen})
        shares = [tests[first :: asked.jobs] for first in range(min(asked.jobs, len(tests)))]
        for verdict in pool.map(check, [None] * len(shares), shares):
            if verdict.colour != "green":
                print(f"With nothing removed the tests are not green:\n{verdict.said}")
                return 2
        print(f"with nothing removed {len(tests)} tests are green", flush=True)
        verdicts = list(pool.map(check, chosen, [[]] * len(chosen)))
    return _tell(chosen, verdicts)


def _tell(guards: list[Guard], verdicts: list[Verdict]) -> int:
    """Print the table; 1 if any guard can be removed without a test that goes red."""
    print("\n| guard | test | without it | seconds | what it says |\n|---|---|---|---:|---|")
    for guard, verdict in zip(guards, verdicts, strict=True):
        colour = verdict.colour if verdict.colour == "red" else verdict.colour.upper()
        said = verdict.said.partition("\n")[0][:100].replace("|", "\\|") if colour == "red" else ""
        print(f"| {guard.name} | {guard.test} | {colour} | {verdict.seconds:.0f} | {said} |")
    for guard, verdict in zip(guards, verdicts, strict=True):
        if verdict.colour == "error":
            print(f"\n{guard.name}: {verdict.said}")
    missed = sum(verdict.colour != "red" for verdict in verdicts)
    print(f"\n{len(guards)} guards, {missed} that can be removed unnoticed")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make guards", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--jobs", type=int, default=1, help="how many are removed at a time, each in its own copy"
    )
    parser.add_argument("--only", default="", help="guards whose name has this, a regular expression")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

"""Feeds in Airflow: their places by Airflow's connections; what a sensor does before it reserves batches."""

from __future__ import annotations

import logging
from dataclasses import replace

from rowledger import feeds, loading, pipeline
from rowledger.airflow import stores
from rowledger.feeds import Feed, arrivals, cadence
from rowledger.feeds.places import Place

log = logging.getLogger("rowledger.airflow")


def look(worker: pipeline.Worker, kind: str) -> None:
    """Take the new files of all feeds of a kind, and raise the alarm where one is missing. Raises TryAgain.

    Whether one is missing of a feed that somebody else looks at just now, is his to say: he may be taking it.
    """
    settings = worker.settings
    good, errors = feeds.read_feeds(settings.feeds, loading.kinds())
    for error in errors:
        log.warning("A feed is left out: %s", error)
    mine = [feed for feed in good if feed.kind == kind]
    local = arrivals.local(worker.connection, settings)

    def place_of(feed: Feed) -> Place:
        return stores.store(feed) if feed.remote else local.place_of(feed)

    for done in arrivals.look(replace(local, place_of=place_of), mine):
        name = done.feed.name
        for sentence in done.left:
            log.warning("Feed %s: %s", name, sentence)
        if done.seqnos:
            log.info("Feed %s: import batches %s", name, ", ".join(f"#{seqno}" for seqno in done.seqnos))
        for shown, seqno in done.duplicates:
            log.info('Feed %s: "%s" has the same bytes as import batch %s', name, shown, seqno)
        cadence.watch(worker.connection, done.feed)

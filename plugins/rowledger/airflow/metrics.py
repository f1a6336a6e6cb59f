"""Metrics, sent by tasks through Airflow's own: StatsD or OpenTelemetry, whatever ``[metrics]`` of its configuration says.

Where it says neither, nothing is sent. That what was sent arrives is nobody's promise: a task that is killed between its
work and its metrics has not told, and nothing is asked for a second time. The ledger is what counts.
"""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk.observability.stats import Stats

from rowledger import metrics
from rowledger.db import Connection
from rowledger.model import Batch

PREFIX = "rowledger."  # behind Airflow's own prefix


def sensed(connection: Connection, kind: str, taken_over: int) -> None:
    """Gauges of what has not ended, and how many batches of silent workers were taken over."""
    for name, value in metrics.unfinished(connection, kind).items():
        Stats.gauge(f"{PREFIX}{name}", value)
    if taken_over:
        Stats.incr(f"{PREFIX}take_overs.{kind}", taken_over)


def stepped(before: Batch, after: Batch) -> None:
    """Counters, the time and the rate of a batch that has ended in this very step."""
    if before.status.terminal or not after.status.terminal:
        return
    for name, count in metrics.ended(after).items():
        Stats.incr(f"{PREFIX}{name}", count)
    took, rate = metrics.seconds(after), metrics.rate(after)
    if took is not None:
        Stats.timing(f"{PREFIX}duration.{after.kind}", timedelta(seconds=took))
    if rate is not None:
        Stats.gauge(f"{PREFIX}records_per_second.{after.kind}", rate)

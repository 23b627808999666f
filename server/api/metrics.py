"""Figures for Prometheus: requests and pushes as this process counted them, and what the database says when asked.

Several processes: Prometheus reaches one of them at a time, so each must answer for all. prometheus_client does that
with files that all processes write to, in the folder named by PROMETHEUS_MULTIPROC_DIR; where that is set, a scrape
adds them up. A push gateway or a port for each process were the alternatives: one more service, or as many targets as
cores. Unset, which is right for one process, counters are plain memory. Figures of the database need none of this: they
are read at each scrape and are the same wherever it lands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from flask import Flask, Response, g, request
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.values import ValueClass

from server.store.listing import Figures
from sync.errors import SyncError
from sync.protocol import PushResult

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_PUSH_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0)


class Metrics:
    """What is counted. `text` is what a scrape gets."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        """figures: what the database says now."""
        self._registry = CollectorRegistry()
        self._figures = figures
        self.requests = Counter(
            "backhaul_requests", "Requests answered.", ["endpoint", "method", "status"], registry=self._registry
        )
        self.mutations = Counter(
            "backhaul_mutations", "Mutations by what became of them.", ["outcome"], registry=self._registry
        )
        self.push_seconds = Histogram(
            "backhaul_push_seconds", "How long a push took.", buckets=_PUSH_SECONDS, registry=self._registry
        )

    def count_push(self, result: PushResult, seconds: float) -> None:
        """Counts a push that was answered. Mutations that came before count as `duplicate`."""
        self.push_seconds.observe(seconds)
        for one in result.results:
            self.mutations.labels("duplicate" if one.duplicate else one.status).inc()

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        registry = self._registry
        # What the client library decided when it was imported: the environment may not say it any more.
        if getattr(ValueClass, "_multiprocess", False):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the library has no types here
        database = CollectorRegistry()
        database.register(_Database(self._figures))
        return generate_latest(registry) + generate_latest(database)


class _Database(Collector):
    """Gauges that are read when they are asked for; none while the database does not answer."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges."""
        try:
            figures = self._figures()
        except SyncError:
            yield GaugeMetricFamily("backhaul_database_up", "Whether the database answers.", value=0)
            return
        yield GaugeMetricFamily("backhaul_database_up", "Whether the database answers.", value=1)
        yield GaugeMetricFamily("backhaul_feed_head", "Position of the last commit.", value=figures.feed_head)
        yield GaugeMetricFamily("backhaul_open_cases", "Review cases that wait.", value=figures.open_cases)


def install_metrics(app: Flask, metrics: Metrics) -> None:
    """Counts every request of `app`, once."""

    def count(response: Response) -> Response:
        # The route, not the path: a label for each id would be a series for each.
        route = request.url_rule.rule if request.url_rule else "(none)"
        if not g.get("counted"):
            g.counted = True
            metrics.requests.labels(route, request.method if route != "(none)" else "", str(response.status_code)).inc()
        return response

    app.after_request(count)

"""Traces the scheduler's jobs, with a span for each batch that did something or failed."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from pipedai.loop import Job
from pipedai.tracing.provider import fail, tracer


def traced(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Return the jobs, each wrapped in code that traces its batches."""
    return tuple(replace(job, work=_traced(job)) for job in jobs)


def _traced(job: Job) -> Callable[[], int]:
    def work() -> int:
        span = tracer().start_span(f"job {job.name}", kind=SpanKind.INTERNAL)
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            try:
                units = job.work()
            except Exception as error:
                fail(span, type(error).__name__)
                span.end()
                raise
        # Most batches find nothing to do. Their spans are never ended, and a span that is not ended is not sent.
        if units:
            span.set_attribute("pipedai.job.units", units)
            span.end()
        return units

    return work

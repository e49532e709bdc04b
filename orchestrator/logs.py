"""Structured logs: one event name and its fields a line, JSON outside a terminal. Logs may be lost; audit may not."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(*, level: str = "INFO", as_json: bool | None = None) -> None:
    """Send every logger to stderr. `as_json` defaults to JSON unless stderr is a terminal."""
    as_json = not sys.stderr.isatty() if as_json is None else as_json
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=True)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        # Asked for at every line: standard error may be another stream by then, and the old one closed.
        logger_factory=lambda *_: structlog.PrintLogger(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> structlog.typing.FilteringBoundLogger:
    """A logger whose events are named `noun.verbed`, as in `refresh.swapped`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(room=name)
    return logger

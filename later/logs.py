"""How Later keeps its diary: past-tense events with fields, for people on a console, as JSON for machines."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog


def configure(style: Literal["auto", "console", "json"], level: str, stream: TextIO | None = None) -> None:
    """Send events of this level and above to the stream (stderr by default); libraries are heard from warnings up."""
    out = stream or sys.stderr
    for_people = style == "console" or (style == "auto" and out.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            colors=out.isatty(),
            # The default one prints local variables, and with them secrets.
            exception_formatter=structlog.dev.plain_traceback,
        )
        if for_people
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if for_people else [structlog.processors.format_exc_info]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(stream=out, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", force=True)

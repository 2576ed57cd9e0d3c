"""Log lines: one for each record, for a terminal or for a machine.

Text that came from outside may carry line breaks; here they are escaped, so that nobody can forge a
second line. A traceback follows its record, each line marked, or is a field of the JSON object.
"""

from __future__ import annotations

import json
import logging
import time


def printable(text: str) -> str:
    """`text` on one line: control characters and lone surrogates as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


class ConsoleLine(logging.Formatter):
    """`12:04:31.204 I calls.twilio.webhooks CA12..ef = webhook 200`"""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        message = printable(record.getMessage())
        line = f"{clock}.{int(record.msecs):03d} {record.levelname[0]} {record.name} {message}"
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *(f"  | {printable(step)}" for step in trace)])
        return line


class JsonLine(logging.Formatter):
    """One JSON object a line, times in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        facts = {
            "at": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            facts["trace"] = self.formatException(record.exc_info)
        return json.dumps(facts)

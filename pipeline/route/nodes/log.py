"""`log`: a message in, a line in the log, the message out by `then`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pipeline.part import Part
from pipeline.route.fields import TemplateText
from pipeline.route.node import Onward, Outcome
from pipeline.route.turn import encode
from pipeline.route.visit import Visit


class LogConfig(Part):
    """What is said, and how loud."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    message: TemplateText


class Log(Onward):
    """Says something in the log, with tenant, device, chain and node beside it.

    - name: note
      log: {level: warning, message: "${device.name} has ${telemetry.temperature} °C"}
    """

    verb: ClassVar[str] = "log"

    log: LogConfig

    def apply(self, visit: Visit) -> Outcome:
        """Say it; return `then`."""
        message = self.log.message(visit.scope)
        # One `${ … }` alone gives whatever it is: a number, a list.
        text = message if isinstance(message, str) else encode(message).decode()
        visit.log(self.log.level, text)
        return "then"


NODE = Log

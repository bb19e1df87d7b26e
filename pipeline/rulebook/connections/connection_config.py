"""What every `connection:` of an integration is, whatever its transport; each has its subclass."""

from __future__ import annotations

from typing import Any, ClassVar

from pipeline.integrations.dialect import Dialect
from pipeline.part import Part
from pipeline.rulebook.catalogue import Problem


class ConnectionConfig(Part):
    """The port between a transport and the checks of rules."""

    answers: ClassVar[bool] = False
    """Whether a device can be answered on the way that its message came."""
    stays_open: ClassVar[bool] = False
    """Whether that way stays open for downlinks that are asked for later."""

    @classmethod
    def carries(cls, dialect: Dialect) -> list[Problem]:  # noqa: ARG003 - the port's shape
        """Return why this transport does not carry a dialect; paths are of the integration."""
        return []

    @property
    def one_owner(self) -> bool:
        """Whether one worker of all may have this connection at a time."""
        return False

    def together(self, dialect: Dialect, options: Any) -> list[Problem]:  # noqa: ARG002
        """Return what the connection and the dialect's options do not have between them."""
        return []

    @classmethod
    def template(cls, dialect: Dialect, variable: str) -> list[str]:  # noqa: ARG003
        """Return lines of YAML to fill in, below `connection:`. `variable` is how the names of
        environment variables begin, for secrets.
        """
        return [f"  {name}: …" for name, field in cls.model_fields.items() if field.is_required()]

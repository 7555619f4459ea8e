"""The faults of this room."""

from __future__ import annotations

from sekisho.kernel.errors import SekishoError


class UnknownName(SekishoError):
    """A tenant, key, operator, site or endpoint that this federation does not have."""

    code = "name.unknown"


class Conflict(SekishoError):
    """The change can't be made in the present state."""

    code = "state.conflict"


class EnrolmentRefused(SekishoError):
    """An invitation or an enrolment that is not taken; the code says why."""

    code = "enrol.refused"


class AgentRefused(SekishoError):
    """A request of an agent that is not believed; the code says why."""

    code = "agent.refused"

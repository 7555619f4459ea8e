"""Why a workload can't be: each with its code and the next step."""

from __future__ import annotations

from sekisho.capacity.faults import ReserveFault


class WorkloadUnknown(ReserveFault):
    """There is no such workload."""

    code = "workload.unknown"


class WorkloadRefused(ReserveFault):
    """It does not fit its reservation, or its name belongs to somebody else."""

    code = "workload.refused"


class EngineUnknown(ReserveFault):
    """A site of the reservation does not offer this model on this engine."""

    code = "workload.engine"


class ReportUnreadable(ReserveFault):
    """A site's report is not in the form of this version."""

    code = "workload.report"

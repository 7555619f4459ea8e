"""Why a reservation can't be made or changed: each with its code and the next step."""

from __future__ import annotations

from sekisho.kernel.errors import SekishoError


class ReserveFault(SekishoError):
    """Base of everything that this room refuses."""

    code = "reserve.refused"


class WindowInvalid(ReserveFault):
    """Times or numbers that no reservation can have."""

    code = "reserve.invalid"


class NameUnknown(ReserveFault):
    """A pool, GPU model, site, tenant or reservation that is not there, or is not the caller's."""

    code = "reserve.unknown"


class NotFree(ReserveFault):
    """The GPUs are taken in that window."""

    code = "reserve.not_free"


class NotAllowed(ReserveFault):
    """No site with such GPUs may serve the tenant's data class."""

    code = "reserve.residency"


class OverLimit(ReserveFault):
    """More than the tenant may hold of one pool, or than its quota and what its cohort lends."""

    code = "reserve.limit"


class Changed(ReserveFault):
    """Somebody else changed the reservation since the caller read it."""

    code = "reserve.changed"


class KeyReused(ReserveFault):
    """An idempotency key came a second time with another request."""

    code = "reserve.key_reused"


class OfferGone(ReserveFault):
    """An offer is booked, or older than five minutes."""

    code = "reserve.offer_gone"


class Finished(ReserveFault):
    """The reservation has ended or was cancelled; nothing about it changes any more."""

    code = "reserve.finished"


class Oversold(ReserveFault):
    """The second guard stopped what the first one let through: a fault of ours, and nothing was written."""

    code = "reserve.guard"

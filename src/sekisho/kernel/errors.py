"""Faults: a fact, a stable code and the next step. (A refusal is a value, not a fault.)"""

from __future__ import annotations


class SekishoError(Exception):
    """Base of every fault that a person may read.

    `code` is stable and documented in docs/reference/errors.md; `hint` says what to do next.
    """

    code = "internal"

    def __init__(self, fact: str, *, hint: str = "", code: str | None = None) -> None:
        super().__init__(fact)
        self.fact = fact
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        tail = f" — {self.hint}" if self.hint else ""
        return f"{self.fact} [{self.code}]{tail}"

"""Faults: a fact, a stable code and the next step. (A refusal is a value, not a fault.)"""

from __future__ import annotations


class SekishoError(Exception):
    """Base of every fault that a person may read.

    `code` is stable and documented in docs/reference/errors.md; `hint` says what to do next. What tenants' people
    read has both in Japanese, too.
    """

    code = "internal"

    def __init__(
        self, fact: str, *, hint: str = "", code: str | None = None, fact_ja: str = "", hint_ja: str = ""
    ) -> None:
        super().__init__(fact)
        self.fact = fact
        self.hint = hint
        self.fact_ja = fact_ja
        self.hint_ja = hint_ja
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        tail = f" — {self.hint}" if self.hint else ""
        return f"{self.fact} [{self.code}]{tail}"

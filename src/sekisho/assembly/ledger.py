"""How an installation's log is called, and who signs it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sekisho.assembly.home import Home, load_log_key
from sekisho.ledger.tlog.keys import Algorithm, NoteSigner, VerifierKey
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.years import origin_of


def log_origin(home: Home, configured: str | None = None) -> str:
    """The origin without its year: what the configuration says, or a name that no other installation has."""
    if configured:
        return configured
    digest = hashlib.sha256(bytes.fromhex(home.log_pub.read_text().strip())).hexdigest()
    return f"sekisho.local/{digest[:16]}"


def log_signer(home: Home, name: str) -> NoteSigner:
    """Signs checkpoints of the log with this origin (the name of a log's key is the log's origin)."""
    return NoteSigner(name, load_log_key(home))


def log_key_of(home: Home, log: Path) -> VerifierKey:
    """The installation's public key under the name that this log bears."""
    return VerifierKey(
        name=LogReader(log).checkpoint().origin,
        algorithm=Algorithm.ED25519,
        public=bytes.fromhex(home.log_pub.read_text().strip()),
    )


def log_verifier(home: Home, year: int, configured: str | None = None) -> VerifierKey:
    """The public half, under the name of that year's log. Needs nothing secret."""
    return VerifierKey(
        name=origin_of(log_origin(home, configured), year),
        algorithm=Algorithm.ED25519,
        public=bytes.fromhex(home.log_pub.read_text().strip()),
    )

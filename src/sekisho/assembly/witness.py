"""`python -m sekisho.assembly.witness --home HOME --fd N [--config FILE]`: the witnesses of the demonstration.

One process plays a witness for each simulated site, each with its own keys, memory and address. That shows the
protocol and the quorum; it does not make the witnesses independent: for that, every operator runs `sekisho witness`
on a machine of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import uvicorn
import uvloop
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

from sekisho.assembly.config import load_config
from sekisho.assembly.home import Home, create, ensure_secrets, refusal, write_atomic
from sekisho.assembly.ledger import log_origin, log_verifier
from sekisho.assembly.processes import EXIT_REFUSED
from sekisho.federation.model import Site
from sekisho.kernel.clock import SystemClock
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.keys import Cosigner, VerifierKey
from sekisho.ledger.tlog.years import origin_of
from sekisho.ledger.witness.http import WitnessApp
from sekisho.ledger.witness.service import Witness
from sekisho.ledger.witness.state import WitnessRefused, WitnessState

_log = logging.getLogger("sekisho.witness")
WITNESSES_FILE = "witnesses.json"
# A witness learns of the logs of later years at its next start; nobody runs one for longer than this.
_YEARS_AHEAD = 10
_DRAIN_S = 2


class RunningWitness(msgspec.Struct, frozen=True, kw_only=True):
    """`run/witnesses.json`: where a witness of the demonstration answers, and its keys."""

    name: str
    operator: str
    url: str
    vkeys: tuple[str, ...]
    simulated: bool = True


def witness_name(site: str) -> str:
    """`.invalid` (RFC 2606): these names are of no machine, and nobody can own them."""
    return f"{site}.witness.invalid"


def cosigners(name: str, folder: Path) -> tuple[Cosigner, ...]:
    """The two keys of a witness (Ed25519 and ML-DSA-44), made at the first call, kept in `folder` (PKCS 8, PEM)."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = []
        for file, generate in (
            ("ed25519.key", Ed25519PrivateKey.generate),
            ("ml-dsa-44.key", MLDSA44PrivateKey.generate),
        ):
            path = folder / file
            if not path.exists():
                write_atomic(path, _pem(generate()))
            made.append(Cosigner(name, load_witness_key(path)))
    except OSError as error:
        raise refusal(folder, error) from None
    return tuple(made)


def load_witness_key(path: Path) -> Ed25519PrivateKey | MLDSA44PrivateKey:
    """WitnessRefused when the file holds neither kind of key; OSError when it can't be read."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey | MLDSA44PrivateKey):
        raise WitnessRefused(
            f"{path} holds no Ed25519 or ML-DSA-44 key",
            code="witness.key",
            hint="put back a copy of it; a new key is a new witness, which every policy must be told",
        )
    return key


def _pem(key: Ed25519PrivateKey | MLDSA44PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def demonstration(home: Home, sites: Sequence[Site], logs: Mapping[str, Sequence[VerifierKey]]) -> dict[str, Witness]:
    """A witness for each simulated site, by its prefix."""
    witnesses = {}
    for site in sites:
        name = witness_name(site.id)
        witnesses[f"/{site.id}"] = Witness(
            cosigners=cosigners(name, home.secrets / "witness" / site.id),
            logs=logs,
            state=WitnessState(home.root / "witness" / site.id),
        )
    return witnesses


def serve(app: WitnessApp, listening: socket.socket) -> None:
    """Answers until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_DRAIN_S,
        limit_concurrency=256,
    )
    uvloop.run(uvicorn.Server(config).serve(sockets=[listening]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sekisho.assembly.witness", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".sekisho"), help="the home directory")
    parser.add_argument("--config", type=Path, help="a federation (TOML); without it, the demonstration")
    parser.add_argument("--fd", type=int, required=True, help="an inherited listening socket")
    options = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    os.umask(0o077)
    try:
        home = Home.at(options.home)
        create(home)
        ensure_secrets(home)
        config = load_config(options.config).config
        origin = log_origin(home, config.ledger.origin)
        first = datetime.now(UTC).year - 1
        keys = [log_verifier(home, year, config.ledger.origin) for year in range(first, first + _YEARS_AHEAD)]
        logs = {key.name: [key] for key in keys}
        sites = [site for site in config.federation.sites if site.simulated]
        witnesses = demonstration(home, sites, logs)
        listening = socket.socket(fileno=options.fd)
        _announce(home, sites, witnesses, listening)
    except (SekishoError, OSError) as error:
        _log.error("not started: %s", error)
        return EXIT_REFUSED
    _log.info("%d witnesses of the demonstration answer for %s", len(witnesses), origin_of(origin, first + 1))
    serve(WitnessApp(witnesses, clock=SystemClock()), listening)
    return 0


def _announce(home: Home, sites: Sequence[Site], witnesses: Mapping[str, Witness], listening: socket.socket) -> None:
    host, port = listening.getsockname()[:2]
    running = tuple(
        RunningWitness(
            name=witnesses[f"/{site.id}"].name,
            operator=site.operator,
            url=f"http://{host}:{port}/{site.id}",
            vkeys=tuple(key.vkey for key in witnesses[f"/{site.id}"].keys),
        )
        for site in sites
    )
    write_atomic(home.run / WITNESSES_FILE, msgspec.json.encode(running))


if __name__ == "__main__":
    sys.exit(main())

"""`sekisho site locate`, and what it rests on: `answer` at the site, `landmark` and `measure` at a known place."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Literal, TypeVar
from urllib.parse import quote

import click
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sekisho.assembly.home import write_atomic
from sekisho.assembly.sockets import parse_address
from sekisho.cli import locate_texts as said
from sekisho.cli import site_texts as site_said
from sekisho.cli.control_client import call
from sekisho.cli.keys import Duration
from sekisho.cli.local import home_option, json_option
from sekisho.cli.operator import read_operator_key
from sekisho.cli.site import site
from sekisho.cli.texts import language
from sekisho.federation.challenge import PublicKey, read_spki, spki
from sekisho.federation.landmark import Landmark, Measurement, SignedMeasurement, landmark_of
from sekisho.federation.prober import Unanswered
from sekisho.federation.prober import measure as ask
from sekisho.federation.views import MeasurementAsked
from sekisho.kernel.clock import SystemClock
from sekisho.kernel.errors import SekishoError
from sekisho.residency.location.model import Finding

T = TypeVar("T")
File = click.Path(path_type=Path)
_JITTER = 0.2
# Landmarks ask what to do with their heart-beats, and do one burst after the other.
_NOW_WITHIN_S = 60.0
_SETTLED_S = 3.0


class LocationFileRefused(SekishoError):
    """A file or an argument of these commands that can't be what it should be."""

    code = "location.file"


@site.command(help=str(said.LOCATE))
@click.argument("site_id", metavar="SITE")
@click.option("--map", "drawing", type=File, help=str(said.OPTION_MAP))
@click.option("--measurement", "files", type=File, multiple=True, help=str(said.OPTION_MEASUREMENT))
@click.option("--now", "anew", is_flag=True, help=str(said.OPTION_NOW))
@json_option
@home_option
def locate(
    *, site_id: str, drawing: Path | None, files: tuple[Path, ...], anew: bool, as_json: bool, root: Path
) -> None:
    """The help is `LOCATE`."""
    from sekisho.residency.location.land import natural_earth  # noqa: PLC0415 - these two read the map
    from sekisho.residency.location.picture import draw  # noqa: PLC0415
    from sekisho.residency.location.words import report  # noqa: PLC0415

    path = f"/api/v1/sites/{quote(site_id, safe='')}/location"
    if anew:
        finding = _measured_now(root, path)
    elif files:
        given = [msgspec.to_builtins(_read(file, SignedMeasurement)) for file in files]
        finding = call(root, "POST", path, body={"measurements": given}, answer=Finding)
    else:
        finding = call(root, "GET", path, answer=Finding)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(finding), indent=1).decode())
    else:
        click.echo("\n".join(report(finding, language())))
    if drawing is not None:
        _write(drawing, draw(finding, natural_earth(), language()).encode())
        click.echo(said.DRAWN(file=drawing), err=as_json)
    sys.exit(1 if finding.verdict == "contradicted" else 0)


def _measured_now(root: Path, path: str) -> Finding:
    """Asks for a measurement and waits for what it brings."""
    before = call(root, "GET", path, answer=Finding).digest
    asked = call(root, "POST", f"{path}/measure", answer=MeasurementAsked)
    if not asked.landmarks:
        raise LocationFileRefused(
            "no site counts as a landmark that could measure this one",
            code="location.no_landmark",
            hint="name one under `sites` in landmarks.json, or measure with `sekisho site measure`",
        )
    click.echo(said.ASKED(site=", ".join(asked.landmarks)), err=True)
    deadline = time.monotonic() + _NOW_WITHIN_S
    finding = call(root, "GET", path, answer=Finding)
    seen, changed_at = before, time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        finding = call(root, "GET", path, answer=Finding)
        if finding.digest != seen:
            seen, changed_at = finding.digest, time.monotonic()
        elif seen != before and time.monotonic() - changed_at > _SETTLED_S:
            return finding
    if seen == before:
        click.echo(str(said.NOTHING_NEW), err=True)
    return finding


@site.command(help=str(said.ANSWER))
@click.option("--listen", default="0.0.0.0:7845", show_default=True, help=str(said.OPTION_ANSWER_LISTEN))
@click.option(
    "--dir",
    "directory",
    type=File,
    default=".sekisho-site",
    envvar="SEKISHO_SITE_DIR",
    show_default=True,
    show_envvar=True,
    help=str(site_said.OPTION_DIR),
)
def answer(*, listen: str, directory: Path) -> None:
    """The help is `ANSWER`. Until SIGTERM or SIGINT."""
    import uvloop  # noqa: PLC0415 - servers are for this command alone

    from sekisho.assembly.site_home import SiteHome, load_enrolment, load_key  # noqa: PLC0415
    from sekisho.federation.responder import Responder  # noqa: PLC0415

    home = SiteHome(directory)
    name, key = load_enrolment(home).site, load_key(home.key)
    host, port = parse_address(listen)

    async def main() -> None:
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        responder = Responder(key, site=name, clock=SystemClock(), ticks=time.monotonic)
        bound = await responder.start(host, port)
        shown = base64.b64encode(spki(key)).decode()
        click.echo(said.ANSWERING(site=name, host=host, port=bound, key=shown))
        await stopping.wait()
        responder.close()
        count = responder.counters
        click.echo(
            said.STOPPED(
                answered=count.answered,
                malformed=count.malformed,
                stale=count.stale,
                other=count.other_site,
                often=count.too_often,
            )
        )

    uvloop.run(main())


@site.command(help=str(said.LANDMARK))
@click.argument("landmark_id", metavar="ID")
@click.option("--at", "place", required=True, metavar="LAT,LON", help=str(said.OPTION_AT))
@click.option(
    "--error",
    "error_km",
    type=click.FloatRange(0, 1000),
    default=1.0,
    show_default=True,
    help=str(said.OPTION_ERROR),
)
@click.option("--key", "key_file", type=File, required=True, help=str(said.OPTION_LANDMARK_KEY))
def landmark(*, landmark_id: str, place: str, error_km: float, key_file: Path) -> None:
    """The help is `LANDMARK`. A key that is there is used again."""
    latitude, longitude = _place(place)
    if key_file.exists():
        key = read_operator_key(key_file)
    else:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write(key_file, pem)
    made = landmark_of(landmark_id, latitude=latitude, longitude=longitude, position_error_km=error_km, key=key)
    click.echo(msgspec.json.encode(made).decode())


@site.command(help=str(said.MEASURE))
@click.argument("site_id", metavar="SITE")
@click.option("--address", required=True, help=str(said.OPTION_ADDRESS))
@click.option("--site-key", required=True, help=str(said.OPTION_SITE_KEY))
@click.option("--landmark", "landmark_file", type=File, required=True, help=str(said.OPTION_LANDMARK))
@click.option("--key", "key_file", type=File, required=True, help=str(said.OPTION_LANDMARK_KEY))
@click.option("--tcp", is_flag=True, help=str(said.OPTION_TCP))
@click.option("--out", type=File, default="measurement.json", show_default=True, help=str(said.OPTION_MEASURE_OUT))
@click.option("--every", "every_s", type=Duration(), help=str(said.OPTION_EVERY))
@click.option("--control", help=str(said.OPTION_CONTROL))
@click.option("--ca", type=File, help=str(site_said.OPTION_CA))
def measure(
    *,
    site_id: str,
    address: str,
    site_key: str,
    landmark_file: Path,
    key_file: Path,
    tcp: bool,
    out: Path,
    every_s: float | None,
    control: str | None,
    ca: Path | None,
) -> None:
    """The help is `MEASURE`. Exit code 1 when there was no valid answer."""
    mark, key, known = _read(landmark_file, Landmark), read_operator_key(key_file), _site_key(site_key)
    if mark.spki != spki(key):
        raise LocationFileRefused(
            f"{key_file} is not the key of the landmark {mark.id}", hint="give the key that `landmark` made with it"
        )
    from sekisho.assembly.site_control import hand_in_measurements  # noqa: PLC0415 - an HTTP client
    from sekisho.assembly.site_home import control_address  # noqa: PLC0415

    desk = None if control is None else control_address(control)
    authority = None if ca is None else str(ca.absolute())
    where = parse_address(address)
    chance = random.SystemRandom()
    transport: Literal["udp", "tcp"] = "tcp" if tcp else "udp"
    while True:
        found = ask(
            where,
            landmark=mark,
            key=key,
            site=site_id,
            site_key=known,
            nonces=os.urandom,
            chance=chance,
            transport=transport,
        )
        if isinstance(found, Unanswered):
            click.echo(said.UNANSWERED(site=site_id, sent=found.sent, why=found.because), err=True)
        else:
            _write(out, msgspec.json.encode(found))
            seen = msgspec.json.decode(found.body, type=Measurement)
            click.echo(
                said.MEASURED(site=site_id, rtt=seen.rtt_ns / 1e6, answered=seen.answered, sent=seen.sent, out=out)
            )
            if desk is not None:
                try:
                    verdict = hand_in_measurements(desk, (found,), ca=authority).verdicts[site_id]
                    click.echo(said.HANDED_IN(site=site_id, verdict=verdict))
                except SekishoError as error:
                    if every_s is None:
                        raise
                    click.echo(str(error), err=True)  # the next round tries again
        if every_s is None:
            sys.exit(1 if isinstance(found, Unanswered) else 0)
        time.sleep(every_s * (1 + _JITTER * chance.random()))


def _place(text: str) -> tuple[float, float]:
    try:
        latitude, longitude = (float(part) for part in text.split(","))
    except ValueError:
        latitude = longitude = float("nan")
    if not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise LocationFileRefused(f"{text!r} is no place", hint="write latitude,longitude in degrees: 35.68,139.77")
    return latitude, longitude


def _site_key(text: str) -> PublicKey:
    try:
        key = read_spki(base64.b64decode(text, validate=True))
    except binascii.Error:
        key = None
    if key is None:
        raise LocationFileRefused("that is no public key of a site", hint="copy what `sekisho site answer` prints")
    return key


def _read(file: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except OSError as error:
        why = error.strerror or str(error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        why = str(error)
    raise LocationFileRefused(f"{file} can't be read: {why}", hint="give a file that `sekisho site` made")


def _write(file: Path, data: bytes) -> None:
    try:
        write_atomic(file, data)
    except OSError as error:
        raise LocationFileRefused(
            f"{file} can't be written: {error.strerror or error}", hint="choose another place"
        ) from None

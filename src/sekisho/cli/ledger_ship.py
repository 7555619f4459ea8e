"""`sekisho ledger ship`: a gateway machine sends its journals to the control plane on another one."""

from __future__ import annotations

import signal
import ssl
import threading
from pathlib import Path

import click
import httpx
import msgspec

from sekisho.assembly.home import Home
from sekisho.cli import ledger_texts as says
from sekisho.cli.local import home_option
from sekisho.kernel.errors import SekishoError
from sekisho.ledger.shipping import GATEWAY, PATH, Arrived, Shipper

_TIMEOUT_S = 30.0
_EVERY_S = 0.2
_RETRY_S = 2.0


class ShipFault(SekishoError):
    """The journals can't be sent."""

    code = "ledger.ship"


@click.command("ship", help=str(says.SHIP))
@click.option("--to", "url", required=True, help=str(says.OPTION_URL))
@click.option("--name", required=True, help=str(says.OPTION_NAME))
@click.option("--token", type=click.Path(path_type=Path), required=True, help=str(says.OPTION_TOKEN))
@click.option("--journal", type=click.Path(path_type=Path), help=str(says.OPTION_JOURNAL))
@click.option("--ca", type=click.Path(path_type=Path), help=str(says.OPTION_CA))
@click.option("--cert", type=click.Path(path_type=Path), help=str(says.OPTION_CERT))
@click.option("--key", "cert_key", type=click.Path(path_type=Path), help=str(says.OPTION_KEY))
@click.option("--once", is_flag=True, help=str(says.OPTION_ONCE))
@home_option
def ship(
    *,
    url: str,
    name: str,
    token: Path,
    journal: Path | None,
    ca: Path | None,
    cert: Path | None,
    cert_key: Path | None,
    once: bool,
    root: Path,
) -> None:
    """The help is `SHIP`. A lost connection is tried again; what the other side refuses ends it."""
    if not GATEWAY.fullmatch(name):
        raise ShipFault(f"{name!r} is no name of a gateway", hint="take up to 12 small letters, digits and hyphens")
    try:
        secret = token.read_text().strip()
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if cert is not None:
            context.load_cert_chain(cert, cert_key)
    except (OSError, UnicodeDecodeError) as error:
        raise ShipFault(f"a file can't be read: {error}", hint="look at --token, --ca, --cert and --key") from None
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    place = journal or Home.at(root).root / "journal"
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S, verify=context, trust_env=False) as client:
        shipper = _shipper(client, place, name)
        total = 0
        while not stop.is_set():
            try:
                sent = shipper.step()
            except httpx.HTTPError as error:
                if once:
                    raise ShipFault(f"{url} can't be reached: {error}", hint="is the address right?") from None
                # What the other side has of the last part is not known: ask again.
                shipper = _shipper(client, place, name)
                stop.wait(_RETRY_S)
                continue
            total += sent
            if once:
                break
            stop.wait(_EVERY_S if not sent else 0)
    click.echo(says.SHIPPED(count=f"{total:,}"))


def _shipper(client: httpx.Client, journal: Path, name: str) -> Shipper:
    def arrived(worker: str) -> list[Arrived]:
        answer = client.get(PATH, params={"gateway": name, "worker": worker})
        return msgspec.json.decode(_good(answer), type=list[Arrived])

    def post(worker: str, segment: int, offset: int, data: bytes) -> int:
        where: dict[str, str | int] = {"gateway": name, "worker": worker, "segment": segment, "offset": offset}
        kind = {"Content-Type": "application/octet-stream"}
        answer = client.post(PATH, params=where, content=data, headers=kind)
        return msgspec.json.decode(_good(answer), type=Arrived).offset

    return Shipper(journal, arrived=arrived, post=post)


def _good(answer: httpx.Response) -> bytes:
    if answer.status_code >= 500:
        raise httpx.HTTPStatusError("the control plane is not well", request=answer.request, response=answer)
    if answer.is_error:
        raise ShipFault(
            f"the control plane refuses with {answer.status_code}: {answer.text[:300]}",
            hint="look at the token and at the name of this gateway",
        )
    return answer.content

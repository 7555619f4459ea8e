"""Which sites a demonstration plays on this machine, and what lies in the directories of their agents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

import msgspec

from sekisho.assembly.config import Config
from sekisho.assembly.home import Home, write_atomic
from sekisho.assembly.site_home import Enrolment, RawServed, SiteHome, prepare, save_enrolment
from sekisho.federation.model import Endpoint, Federation, Site
from sekisho.federation.report import Gpu, Inventory
from sekisho.kernel.errors import SekishoError

INVENTORY_FILE = "inventory.json"
# What tenants may run at a simulated site in their windows.
_ENGINES = b"""[[engine]]
kind = "llama.cpp"
model = "smollm2-135m"
[workloads]
listen = "127.0.0.1:0"
host = "127.0.0.1"
"""
_MAX_GPUS = 256  # report.Inventory


class DemoRefused(SekishoError):
    """The demonstration's part of the configuration can't be run."""

    code = "demo.endpoint"


def simulated_sites(config: Config) -> tuple[Site, ...]:
    """Those that this machine plays: simulated, with an endpoint."""
    if not config.demo.enabled:
        return ()
    serving = {endpoint.site for endpoint in config.federation.endpoints}
    return tuple(site for site in config.federation.sites if site.simulated and site.id in serving)


def without(federation: Federation, sites: Iterable[Site]) -> Federation:
    """The configuration's part of a federation in which these sites are enrolled; their GPUs stay where they are
    configured."""
    out = {site.id for site in sites}
    return msgspec.structs.replace(
        federation,
        sites=tuple(site for site in federation.sites if site.id not in out),
        endpoints=tuple(endpoint for endpoint in federation.endpoints if endpoint.site not in out),
    )


def prepare_agents(config: Config, home: Home, *, servers: Mapping[str, int], control: str) -> None:
    """The directory of each simulated site's agent, written anew at each start; its key stays. `servers`: the port of
    each endpoint's model server. The control plane enrols them."""
    control_key = home.control_pub.read_text().strip()
    for site in simulated_sites(config):
        place = SiteHome(home.site(site.id))
        prepare(place)
        save_enrolment(place, Enrolment(site=site.id, control=control, control_key=control_key))
        served = [
            RawServed(
                id=endpoint.id,
                listen=f"127.0.0.1:{port_of(endpoint)}",
                url=f"https://127.0.0.1:{port_of(endpoint)}/v1",
                server=f"http://127.0.0.1:{servers[endpoint.id]}",
                models=list(endpoint.models),
                slots=endpoint.slots,
            )
            for endpoint in config.federation.endpoints
            if endpoint.site == site.id
        ]
        write_atomic(place.settings, _toml(served) + _ENGINES)
        gpus = [
            Gpu(uuid=f"SIMULATED-{pool.id}-{number}", name=pool.gpu, memory_mib=pool.memory_mib)
            for pool in config.federation.pools
            if pool.site == site.id
            for number in range(pool.count)
        ]
        inventory = Inventory(simulated=True, gpus=tuple(gpus[:_MAX_GPUS]))
        write_atomic(place.root / INVENTORY_FILE, msgspec.json.encode(inventory))


def _toml(served: list[RawServed]) -> bytes:
    """Basic strings and arrays of TOML are written like those of JSON (toml.io v1.0.0, string)."""
    lines = ["# written by `sekisho up`: what stands here is lost at its next start"]
    for each in served:
        values = msgspec.json.decode(msgspec.json.encode(each))
        lines += [
            "[[endpoint]]",
            *(f"{name} = {msgspec.json.encode(value).decode()}" for name, value in values.items()),
        ]
    return "\n".join(lines).encode() + b"\n"


def port_of(endpoint: Endpoint) -> int:
    """The port that a simulated endpoint's address names."""
    parts = urlsplit(endpoint.url)
    if parts.scheme != "http" or parts.hostname != "127.0.0.1" or not parts.port:
        raise DemoRefused(
            f"the simulated endpoint {endpoint.id} has the address {endpoint.url}",
            hint="write http://127.0.0.1:PORT/v1, or set demo.enabled = false if a real server answers there",
        )
    return parts.port

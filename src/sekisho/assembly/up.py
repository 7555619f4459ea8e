"""`sekisho up`: from a configuration to a fleet that runs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from sekisho.assembly import ready
from sekisho.assembly.config import Config, load_config
from sekisho.assembly.config_gateway import raw_name
from sekisho.assembly.demo_plan import port_of, prepare_agents, simulated_sites
from sekisho.assembly.demo_site import model_file
from sekisho.assembly.fleet import Fleet, Planned, Reporter, Warned
from sekisho.assembly.home import (
    Home,
    HomeRefused,
    create,
    ensure_demo_keys,
    ensure_secrets,
    lock,
    require_space,
    write_atomic,
)
from sekisho.assembly.processes import ChildSpec, Kind
from sekisho.assembly.sockets import Listeners, url_of
from sekisho.assembly.supervisor import Supervisor
from sekisho.assembly.witness import WITNESSES_FILE
from sekisho.federation.model import Endpoint
from sekisho.gateway.settings import WorkerSpec

# Beside the journals: the database, the logs and the route table.
_OTHER_STATE_BYTES = 32 << 20


class UpOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What `sekisho up` was told. `config` None: the embedded default."""

    home: Path
    config: Path | None = None
    ready_file: Path | None = None


def up(options: UpOptions, reporter: Reporter) -> int:
    """Run the fleet in the foreground until a signal ends it. The exit code: 0, or 1 when something was cut.

    Raises SekishoError when it can't start: then nothing was started, or all of it has ended again.
    """
    os.umask(0o077)
    config_file = options.config.absolute() if options.config else None
    ready_file = options.ready_file.absolute() if options.ready_file else None
    loaded = load_config(config_file)
    config = loaded.config
    for warning in loaded.warnings:
        reporter.tell(Warned(text=str(warning)))
    home = Home.at(options.home)
    create(home)
    held = lock(home)
    listeners = Listeners()
    try:
        require_space(home, needed_bytes=_needed_bytes(config))
        ensure_secrets(home)
        if ready_file:
            _require_writable(ready_file)
        fleet = plan_fleet(config, home=home, config_file=config_file, listeners=listeners)

        def reload() -> str:
            return _needs_restart(config, load_config(config_file).config)

        supervisor = Supervisor(
            fleet,
            home=home,
            config=config_file,
            ready_file=ready_file,
            reload=reload,
            close_listeners=listeners.close,
            rest_listeners=listeners.rest,
            reporter=reporter,
        )
        return asyncio.run(supervisor.run())
    finally:
        listeners.close()
        os.close(held)


def plan_fleet(config: Config, *, home: Home, config_file: Path | None, listeners: Listeners) -> Fleet:
    """Bind the sockets, write the workers' specifications, and say what to run."""
    settings = config.gateway
    count = worker_count(settings.workers)
    gateway_sockets = listeners.shared(settings.listen, count=count, backlog=settings.backlog)
    gateway_url = url_of(gateway_sockets[0], tls=settings.tls is not None)
    control_socket = listeners.alone(config.control.listen)
    console_url = url_of(control_socket)
    sites = _demo_endpoints(config)
    # The address in the configuration is the agent's; the model server behind it has one that nobody is told.
    servers = {name: listeners.reserve("127.0.0.1", 0) for name in sites}
    for endpoint in sites.values():
        listeners.reserve("127.0.0.1", port_of(endpoint))
    prepare_agents(
        config, home, servers={sites[name].id: port for name, port in servers.items()}, control=console_url
    )

    control = Planned(
        spec=ChildSpec(
            name="control",
            kind=Kind.CONTROL,
            module="sekisho.assembly.control",
            arguments=(
                *("--home", str(home.root), "--fd", str(control_socket.fileno())),
                *(("--config", str(config_file)) if config_file else ()),
            ),
            log=home.log("control"),
            pass_fds=(control_socket.fileno(),),
        ),
        probe=ready.http(f"{console_url}/readyz"),
    )
    workers = []
    for index, listener in enumerate(gateway_sockets):
        spec = WorkerSpec(
            index=index,
            workers=count,
            settings=settings,
            listen_fds=(listener.fileno(),),
            table_file=str(home.table),
            control_public_key=home.control_pub.read_text().strip(),
            control_url=console_url,
            control_token_file=str(home.gateway_token),
            journal_dir=str(home.journal(index)),
            limits_file=str(home.limits),
            admin_socket=str(home.worker_socket(index)),
        )
        write_atomic(home.worker_spec(index), msgspec.json.encode(spec))
        workers.append(
            Planned(
                spec=ChildSpec(
                    name=f"worker-{index}",
                    kind=Kind.WORKER,
                    module="sekisho.assembly.worker",
                    arguments=(str(home.worker_spec(index)),),
                    log=home.log(f"worker-{index}"),
                    pass_fds=spec.listen_fds,
                ),
                probe=ready.worker(home.worker_socket(index)),
            )
        )
    return Fleet(
        control=control,
        workers=tuple(workers),
        sites=tuple(_site(name, endpoint, servers[name], config, home) for name, endpoint in sites.items()),
        site_ids=tuple(sites),
        services=(
            _sequencer(home, config_file),
            *_witnesses(config, home, config_file, listeners),
            *_agents(config, home),
        ),
        gateway_probe=ready.all_of(
            # The agents were heard while the workers started.
            ready.table_everywhere(console_url, [home.worker_socket(index) for index in range(count)]),
            ready.http(f"{gateway_url}/readyz", behind_proxy=settings.proxy_protocol)
            # Where clients need a certificate we have none to show: each worker's own word is enough then.
            if settings.tls is None or settings.tls.client_ca is None
            else ready.always,
        ),
        gateway_url=gateway_url,
        console_url=console_url,
        admin_token=home.admin_token.read_text().strip(),
        api_keys=ensure_demo_keys(home, tenants_without_keys(config)) if config.demo.enabled else {},
        models=tuple(dict.fromkeys(model for endpoint in config.federation.endpoints for model in endpoint.models)),
        drain_grace_s=settings.drain_grace_s,
    )


def worker_count(configured: int) -> int:
    """0 means one for each core that this process may use."""
    return configured or len(os.sched_getaffinity(0))


def tenants_without_keys(config: Config) -> tuple[str, ...]:
    """In the order of the configuration."""
    with_keys = {key.tenant for key in config.federation.keys}
    return tuple(tenant.id for tenant in config.federation.tenants if tenant.id not in with_keys)


def _sequencer(home: Home, config_file: Path | None) -> Planned:
    return Planned(
        spec=ChildSpec(
            name="sequencer",
            kind=Kind.SEQUENCER,
            module="sekisho.assembly.sequencer",
            arguments=("--home", str(home.root), *(("--config", str(config_file)) if config_file else ())),
            log=home.log("sequencer"),
        ),
        probe=ready.answers_with_pid(home.sequencer_socket),
    )


def _witnesses(config: Config, home: Home, config_file: Path | None, listeners: Listeners) -> tuple[Planned, ...]:
    """The demonstration's witnesses, one process for all; none for real sites, whose operators run their own."""
    (home.run / WITNESSES_FILE).unlink(missing_ok=True)
    if not config.demo.enabled:
        return ()
    listener = listeners.alone("127.0.0.1:0")
    spec = ChildSpec(
        name="witness",
        kind=Kind.WITNESS,
        module="sekisho.assembly.witness",
        arguments=(
            *("--home", str(home.root), "--fd", str(listener.fileno())),
            *(("--config", str(config_file)) if config_file else ()),
        ),
        log=home.log("witness"),
        pass_fds=(listener.fileno(),),
    )
    return (Planned(spec=spec, probe=ready.http(f"{url_of(listener)}/healthz")),)


def _agents(config: Config, home: Home) -> tuple[Planned, ...]:
    """One process for all of them; none where the sites are real, whose operators run their own."""
    home.agents_socket.unlink(missing_ok=True)
    sites = simulated_sites(config)
    if not sites:
        return ()
    spec = ChildSpec(
        name="agents",
        kind=Kind.AGENTS,
        module="sekisho.assembly.demo_agents",
        arguments=("--home", str(home.root), *(word for site in sites for word in ("--site", site.id))),
        log=home.log("agents"),
    )
    return (Planned(spec=spec, probe=ready.answers_with_pid(home.agents_socket)),)


def _site(name: str, endpoint: Endpoint, port: int, config: Config, home: Home) -> Planned:
    models = [argument for model in endpoint.models for argument in ("--model", model)]
    return Planned(
        spec=ChildSpec(
            name=f"site-{name}",
            kind=Kind.SITE,
            module="sekisho.assembly.demo_site",
            arguments=("--site", name, "--port", str(port), "--threads", str(config.demo.threads), *models),
            log=home.log(f"site-{name}"),
        ),
        probe=ready.model(port, endpoint.models[0]),
    )


def _demo_endpoints(config: Config) -> dict[str, Endpoint]:
    """The endpoints that run on this machine, by their site's id (by their own where a site has several)."""
    if not config.demo.enabled:
        return {}
    model_file()  # refuses before anything starts when the demonstration's parts are not installed
    simulated = {site.id for site in config.federation.sites if site.simulated}
    endpoints = [endpoint for endpoint in config.federation.endpoints if endpoint.site in simulated]
    at_site = [endpoint.site for endpoint in endpoints]
    return {(endpoint.site if at_site.count(endpoint.site) == 1 else endpoint.id): endpoint for endpoint in endpoints}


def _needed_bytes(config: Config) -> int:
    """Each worker writes one journal segment and prepares the next."""
    segments = 2 * worker_count(config.gateway.workers)
    return segments * config.gateway.journal_segment_bytes + _OTHER_STATE_BYTES


def _needs_restart(running: Config, wanted: Config) -> str:
    """What of the new configuration only a restart brings into effect, in words; empty when nothing is."""
    late = [
        f"{table}.{raw_name(field)}"
        for table, before, after in (
            ("gateway", running.gateway, wanted.gateway),
            ("control", running.control, wanted.control),
            ("ledger", running.ledger, wanted.ledger),
            ("demo", running.demo, wanted.demo),
        )
        for field in before.__struct_fields__
        if getattr(before, field) != getattr(after, field)
    ]
    return f"{', '.join(late)} changed: restart `sekisho up` for that; all else is in force" if late else ""


def _require_writable(path: Path) -> None:
    """Find out now, and not after the models have loaded."""
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise HomeRefused(
            f"the ready file {path} can't be written",
            code="ready_file.not_writable",
            hint="name a file in a directory that exists and is writable",
        )

"""What runs in the laboratory: a real gateway, a real control plane and real models, each at its site."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sekisho.assembly.home import Home, create, ensure_secrets
from sekisho.gateway.settings import GatewaySettings, WorkerSnapshot, WorkerSpec
from sekisho.lab import namespaces
from sekisho.lab.network import Lab, LabFailed, end
from sekisho.ledger.journal import read_records, segments
from sekisho.ledger.model import Decision, decode_record
from sekisho.ledger.tlog.entries import read_entry
from sekisho.ledger.tlog.log import LogReader
from sekisho.ledger.tlog.years import newest

MODEL = "smollm2-135m"
CANARY_MODEL = "canary"
HOSPITAL, CANARY = "hospital", "canary"
GATEWAY_PORT, CONTROL_PORT, MODEL_PORT = 8080, 8081, 9100
_START_TIMEOUT_S = 90.0
_ASK_TIMEOUT_S = 2.0
_CONTROL_TIMEOUT_S = 60.0


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """A model server at a site, and the names that it answers to."""

    site: str
    models: tuple[str, ...] = (MODEL,)


class House:
    """A federation in the laboratory. `gateway` and `control` are the sites where these stand.

    Tenants: `hospital` (floor confidential) and `canary` (floor public). A site's operator is under the
    law of the country that the site stands in.
    """

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        serving: Sequence[Serving],
        *,
        gateway: str = "tokyo",
        control: str = "tokyo",
        evidence_validity: str = "1h",
        settings: GatewaySettings | None = None,
    ) -> None:
        self.lab = lab
        self.folder = folder
        self.serving = {each.site: each for each in serving}
        self.gateway_site = gateway
        self.control_site = control
        self.settings = settings or GatewaySettings(workers=1)
        self.validity = evidence_validity
        self.keys = {tenant: f"sk-lab-{secrets.token_hex(16)}" for tenant in (HOSPITAL, CANARY)}
        self.home = Home.at(folder / "home")
        self.logs = folder / "logs"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return f"http://{self.lab.address(self.gateway_site)}:{GATEWAY_PORT}"

    def start(self) -> None:
        """Start everything and wait until each part answers. LabFailed names the part that does not."""
        # An earlier run's journal would be counted with this one's.
        for leftover in (self.home.root, self.logs):
            shutil.rmtree(leftover, ignore_errors=True)
        for file in ("table.bin", "limits.shm"):
            (self.folder / file).unlink(missing_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        create(self.home)
        ensure_secrets(self.home)
        (self.folder / "federation.toml").write_text(self._federation(), "utf-8")
        for site in self.serving:
            self.start_model(site, wait=False)
        self._start_control()
        self._start_sequencer()
        self._start_gateway()
        for site in self.serving:
            self._until_model_answers(site)

    # -- its parts

    def start_model(self, site: str, *, wait: bool = True) -> None:
        serving = self.serving[site]
        names = [word for model in serving.models for word in ("--model", model)]
        name = f"model-{site}"
        self._processes[name] = self.lab.python(
            site,
            "sekisho.assembly.demo_site",
            *("--site", site, "--host", self.lab.address(site), "--port", str(MODEL_PORT), *names),
            log=self.logs / f"{name}.log",
        )
        if wait:
            self._until_model_answers(site)

    def kill_model(self, site: str) -> None:
        """kill -9."""
        process = self._processes[f"model-{site}"]
        process.kill()
        process.wait()

    def _start_control(self) -> None:
        listening = self._listening(self.control_site, CONTROL_PORT)
        self._processes["control"] = self.lab.python(
            self.control_site,
            "sekisho.assembly.control",
            *("--home", str(self.home.root), "--config", str(self.folder / "federation.toml")),
            *("--fd", str(listening.fileno())),
            log=self.logs / "control.log",
            pass_fds=(listening.fileno(),),
        )
        listening.close()
        self._until(
            lambda: b"HTTP/1.1 " in self._get(self.control_site, CONTROL_PORT, "/healthz"),
            "the control plane",
            "control",
        )

    def _start_sequencer(self) -> None:
        self._processes["sequencer"] = self.lab.python(
            self.control_site,
            "sekisho.assembly.sequencer",
            *("--home", str(self.home.root), "--config", str(self.folder / "federation.toml")),
            log=self.logs / "sequencer.log",
        )

    def _start_gateway(self) -> None:
        listening = self._listening(self.gateway_site, GATEWAY_PORT)
        settings = msgspec.structs.replace(
            self.settings, listen=f"{self.lab.address(self.gateway_site)}:{GATEWAY_PORT}", workers=1
        )
        spec = WorkerSpec(
            index=0,
            workers=1,
            settings=settings,
            listen_fds=(listening.fileno(),),
            table_file=str(self.folder / "table.bin"),
            control_public_key=self.home.control_pub.read_text().strip(),
            control_url=f"http://{self.lab.address(self.control_site)}:{CONTROL_PORT}",
            control_token_file=str(self.home.secrets / "gateway_token"),
            journal_dir=str(self.home.journal(0)),
            limits_file=str(self.folder / "limits.shm"),
            admin_socket=str(self.home.worker_socket(0)),
        )
        file = self.folder / "worker.json"
        file.write_bytes(msgspec.json.encode(spec))
        self._processes["gateway"] = self.lab.python(
            self.gateway_site,
            "sekisho.assembly.worker",
            str(file),
            log=self.logs / "gateway.log",
            pass_fds=(listening.fileno(),),
        )
        listening.close()
        self._until(lambda: self.snapshot().table_version > 0, "the gateway", "gateway")

    def stop_gateway(self) -> None:
        """In order: what it has to write down is on the disk afterwards."""
        end(self._processes["gateway"], within_s=40.0)

    def stop_sequencer(self) -> None:
        """In order: what waits for the transparency log is in it afterwards."""
        end(self._processes["sequencer"], within_s=60.0)

    # -- what it says and writes

    def ask_control(self, method: str, path: str, body: object = None) -> bytes:
        """An administrator's request, made at the control plane's own site. LabFailed when it is refused."""
        with self.lab.inside(self.control_site) as asking:
            asking.settimeout(_CONTROL_TIMEOUT_S)
            asking.connect((self.lab.address(self.control_site), CONTROL_PORT))
            connection = http.client.HTTPConnection(self.lab.address(self.control_site), CONTROL_PORT)
            connection.sock = asking
            connection.request(
                method,
                path,
                msgspec.json.encode(body),
                {
                    "Authorization": f"Bearer {self.home.admin_token.read_text().strip()}",
                    "Content-Type": "application/json",
                },
            )
            response = connection.getresponse()
            data = response.read()
        if response.status >= 400:
            raise LabFailed(f"{method} {path}: {data.decode(errors='replace')}", hint="see logs/control.log")
        return data

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """The records of one kind in the transparency log, in its order."""
        entries = (read_entry(data) for _, data in LogReader(newest(self.home.ledger)).entries())
        return [json.loads(entry.data)["body"] for entry in entries if entry.kind == kind]

    def snapshot(self) -> WorkerSnapshot:
        """OSError or msgspec.DecodeError while the worker does not answer."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(_ASK_TIMEOUT_S)
            asked.connect(str(self.home.worker_socket(0)))
            return msgspec.json.decode(b"".join(iter(lambda: asked.recv(1 << 16), b"")), type=WorkerSnapshot)

    def decisions(self) -> list[Decision]:
        """The journal's decisions; all of them once the gateway has stopped."""
        found = []
        for path in segments(self.home.journal(0)):
            for _, payload in read_records(path, 0):
                record = decode_record(payload)
                if isinstance(record, Decision):
                    found.append(record)
        return found

    # -- helpers

    def _listening(self, site: str, port: int) -> socket.socket:
        path = namespaces.RUN / f"{namespaces.PREFIX}{os.getpid()}-{site}"

        def work() -> socket.socket:
            namespaces.enter(path)
            listening = socket.socket()
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((self.lab.address(site), port))
            listening.listen(1024)
            return listening

        return namespaces.in_thread(work)

    def _until_model_answers(self, site: str) -> None:
        self._until(
            lambda: b" 200 " in self._get(site, MODEL_PORT, "/health"), f"the model at {site}", f"model-{site}"
        )

    def _get(self, site: str, port: int, path: str) -> bytes:
        """The first bytes of an answer, asked for at the site itself: nothing of it crosses a line."""
        with self.lab.inside(site) as asking:
            asking.settimeout(_ASK_TIMEOUT_S)
            asking.connect((self.lab.address(site), port))
            asking.sendall(f"GET {path} HTTP/1.1\r\nhost: {site}\r\nconnection: close\r\n\r\n".encode())
            return asking.recv(64)

    def _until(self, answers: Callable[[], object], what: str, name: str) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError, msgspec.DecodeError):
                if answers():
                    return
            process = self._processes[name]
            if process.poll() is not None or time.monotonic() > deadline:
                words = (self.logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
                raise LabFailed(
                    f"{what} does not answer: {words[-1] if words else 'it said nothing'}",
                    hint=f"see {self.logs / name}.log",
                )
            time.sleep(0.05)

    def _federation(self) -> str:
        """The configuration file. Strings in JSON's form are strings of TOML."""
        topology = self.lab.topology
        countries = {topology.site(site).country for site in self.serving}
        blocks = [
            _block("residency", jurisdiction=topology.jurisdiction, evidence_validity=self.validity),
            _block("demo", enabled=False),
            *(_block("[operator]", id=f"op-{c.lower()}", name=f"Operator {c}", country=c, law=c) for c in countries),
        ]
        for site, serving in self.serving.items():
            place = topology.site(site)
            blocks.append(
                _block(
                    "[site]",
                    id=site,
                    name=place.name,
                    operator=f"op-{place.country.lower()}",
                    country=place.country,
                    latitude=place.latitude,
                    longitude=place.longitude,
                    simulated=True,
                )
            )
            blocks.append(
                _block(
                    "[endpoint]",
                    id=f"{site}-1",
                    site=site,
                    url=f"http://{self.lab.address(site)}:{MODEL_PORT}/v1",
                    models=list(serving.models),
                    # The way is the laboratory's own, and what is captured on it shall be readable.
                    readable_on_the_way=True,
                )
            )
        floors: Mapping[str, str] = {HOSPITAL: "confidential", CANARY: "public"}
        for tenant, floor in floors.items():
            digest = hashlib.sha256(self.keys[tenant].encode()).hexdigest()
            blocks.append(_block("[tenant]", id=tenant, floor=floor, keys=[f"sha256:{digest}"]))
        return "\n".join(blocks)


def _block(table: str, **values: object) -> str:
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "\n".join([f"[{table}]", *lines, ""])

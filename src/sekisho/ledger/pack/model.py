"""What an evidence pack states, and the catalogue of controls that it speaks to. Values only."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.pack.border import BorderLine

FORM = 1
State = Literal["satisfied", "not-satisfied", "not-assessed"]


class PackRefused(SekishoError):
    """A pack that can't be made, or that does not prove what it states."""

    code = "pack.refused"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """One control. Titles are ours; `iso` are clause ids of ISO/IEC 27017:2015, `seal` objectives of the EU Cloud
    Sovereignty Framework (SOV-1 … SOV-8), `ismap` families of the ISMAP management standard: ids only, no texts."""

    id: str
    en: str
    ja: str
    check_en: str
    check_ja: str
    ismap: tuple[str, ...] = ()
    iso: tuple[str, ...] = ()
    seal: tuple[str, ...] = ()


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many passages of the population share these values."""

    data_class: str
    outcome: str
    country: str
    operator: str
    site: str
    code: str
    passages: int


class PolicyUse(msgspec.Struct, frozen=True, kw_only=True):
    """A policy version under which passages of the population were decided; the first and last of them (Unix ms)."""

    hash: str
    first_ms: int
    last_ms: int
    passages: int
    included: bool  # its text lies in the pack


class LogPart(msgspec.Struct, frozen=True, kw_only=True):
    """The part of one log that was read: the checkpoint (size and root in hex) and the tenant's entries in it.

    `population`: the indices of those entries as differences, the first one from zero.
    """

    origin: str
    size: int
    root: str
    population: tuple[int, ...]


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One drawn decision. `replay` says how deciding again came out; `fact` in words when it was not `same`."""

    position: int  # in the population, over all logs
    origin: str
    index: int
    id: str
    table: int
    policy: str
    replay: Literal["same", "different", "no-inputs", "not-decided"]
    fact: str = ""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one control. `exceptions` of `checked` went against it; `facts` name up to twenty of them."""

    control: str
    state: State
    checked: int
    exceptions: int
    facts: tuple[str, ...] = ()


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a pack states. The report and the OSCAL document are made from it and from nothing else."""

    form: int
    tenant: str
    jurisdiction: str
    since_ms: int
    until_ms: int
    made_at_ms: int
    seed: str
    logs: tuple[LogPart, ...]
    passages: int
    counts: tuple[Count, ...]
    policies: tuple[PolicyUse, ...]
    border: tuple[BorderLine, ...]  # every one of the period, zeros included; their receipts are in the pack
    samples: tuple[Sample, ...]
    findings: tuple[Finding, ...]


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a decision that was made again from its recorded inputs is the recorded one."""

    same: bool
    fact: str = ""


class Replay(Protocol):
    """Decides a recorded passage again. Pure: from the entry, the inputs of its route table and the policy's text."""

    def __call__(self, entry: dict[str, Any], *, inputs: bytes, policy: bytes) -> Replayed: ...


class Archive(Protocol):
    """Where the control plane keeps what tables were compiled from. None: not there (any more)."""

    def inputs(self, table: int) -> bytes | None: ...
    def policy(self, hash: str) -> bytes | None: ...


CONTROLS: tuple[Control, ...] = (
    Control(
        id="sek-residency",
        en="Confidential work is served inside the jurisdiction",
        ja="機密の処理は法域内で行われる",
        check_en="Every completed passage of class confidential or restricted names a site in the jurisdiction.",
        check_ja="区分が confidential 以上で完了した通過は、すべて法域内の拠点で処理されている。",
        ismap=("A.6", "A.18"),
        iso=("CLD.6.3.1", "18.1.1"),
        seal=("SOV-2", "SOV-3"),
    ),
    Control(
        id="sek-evidence",
        en="Confidential work rests on evidence that was valid at the time",
        ja="機密の処理は、その時点で有効な証跡に基づく",
        check_en="Every completed passage of class confidential or restricted names an expiry after its time.",
        check_ja="区分が confidential 以上で完了した通過は、すべて通過時刻より後の有効期限を持つ。",
        ismap=("A.15", "A.18"),
        iso=("15.1.2", "18.2.1"),
        seal=("SOV-4",),
    ),
    Control(
        id="sek-policy",
        en="Every decision names the policy that it was made under",
        ja="すべての判定は、適用したルールの版を示す",
        check_en="Every passage that was routed names a policy hash.",
        check_ja="経路が決まった通過は、すべてルールのハッシュを示す。",
        ismap=("A.5", "A.12"),
        iso=("5.1.1", "12.1.2"),
        seal=("SOV-2",),
    ),
    Control(
        id="sek-refusal",
        en="Every refusal names its reason",
        ja="すべての拒否は理由を示す",
        check_en="Every refused passage carries an error code.",
        check_ja="拒否された通過は、すべてエラーコードを持つ。",
        ismap=("A.12", "A.16"),
        iso=("12.4.1", "16.1.2"),
    ),
    Control(
        id="sek-content",
        en="Records hold commitments and no content",
        ja="記録は内容ではなくコミットメントを持つ",
        check_en="Every entry has only the members that docs/reference/journal.md lists.",
        check_ja="エントリーの項目は docs/reference/journal.md に挙げたものに限られる。",
        ismap=("A.12", "A.18"),
        iso=("12.4.2", "18.1.4"),
        seal=("SOV-3",),
    ),
    Control(
        id="sek-logged",
        en="Decisions stand in a log that witnesses have seen",
        ja="判定は立会人が確認したログに載っている",
        check_en="The receipt of every sampled decision verifies, with a quorum of cosignatures.",
        check_ja="抽出した判定の受領証は、定足数の連署とともにすべて検証できる。",
        ismap=("A.12",),
        iso=("12.4.2", "12.4.3"),
        seal=("SOV-7",),
    ),
    Control(
        id="sek-replay",
        en="Decisions come out the same when they are made again",
        ja="判定をやり直しても同じ結果になる",
        check_en="Every sampled decision, made again from its recorded inputs, is the recorded one.",
        check_ja="抽出した判定を記録された入力からやり直すと、すべて記録と一致する。",
        ismap=("A.12", "A.14"),
        iso=("14.2.9", "18.2.3"),
    ),
    Control(
        id="sek-border",
        en="Nothing confidential crossed the border",
        ja="機密の通信は国境を越えていない",
        check_en="Every border statement of the period counts zero packets on guarded lines, by three counters that"
        " saw the canary, and none is missing between the first and the last.",
        check_ja="期間中の国境計測はすべて、カナリア通信を検知した 3 つの計数器で保護対象回線のパケットが 0 であり、"
        "最初から最後まで欠番がない。",
        ismap=("A.13",),
        iso=("13.1.3", "CLD.13.1.4"),
        seal=("SOV-3", "SOV-5"),
    ),
)

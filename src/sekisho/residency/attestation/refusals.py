"""Everything that can be said against evidence: stable codes, the fact and the next step in both languages."""

from __future__ import annotations

from typing import Literal

import msgspec

Weight = Literal["unusable", "contraindicated", "warning"]


class Meaning(msgspec.Struct, frozen=True, kw_only=True):
    """`weight`: *unusable* evidence proves nothing, *contraindicated* is genuine hardware that says something bad
    (it displaces what stood before), a *warning* leaves evidence standing, but not affirmed."""

    weight: Weight
    en: str
    ja: str
    step_en: str
    step_ja: str


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One sentence against a piece of evidence, as it was said at the time."""

    code: str
    weight: Weight
    en: str
    ja: str
    step_en: str
    step_ja: str


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of evidence that is not accepted, and why: the first thing that was wrong.

    `bound`: what genuine hardware signed over in a report that is contraindicated; empty where nothing is proven.
    """

    finding: Finding
    bound: bytes = b""

    @property
    def code(self) -> str:
        return self.finding.code


def _m(weight: Weight, en: str, ja: str, step_en: str, step_ja: str) -> Meaning:
    return Meaning(weight=weight, en=en, ja=ja, step_en=step_en, step_ja=step_ja)


_AGAIN_EN, _AGAIN_JA = "ask for a new challenge and answer it", "新しいチャレンジを取得して応答してください"
_COLLECT_EN = "collect the evidence anew on the machine itself"
_COLLECT_JA = "対象のマシン上で証跡を取得し直してください"
_IMPORT_EN, _IMPORT_JA = (
    "import it with `sekisho attestation import`",
    "`sekisho attestation import` で取り込んでください",
)

CATALOGUE: dict[str, Meaning] = {
    "attestation.form": _m(
        "unusable",
        "What came is no bundle of evidence of a form that is read here.",
        "届いたものは、読み取れる形式の証跡ではありません。",
        "send what the site's agent collects, unchanged",
        "拠点のエージェントが取得したものを、そのまま送ってください",
    ),
    "attestation.truncated": _m(
        "unusable",
        "The {what} is cut off or not of its form.",
        "{what}が途中で切れているか、形式が正しくありません。",
        _COLLECT_EN,
        _COLLECT_JA,
    ),
    "attestation.signature": _m(
        "unusable",
        "The signature of the {what} does not fit.",
        "{what}の署名が一致しません。",
        _COLLECT_EN,
        _COLLECT_JA,
    ),
    "attestation.chain_broken": _m(
        "unusable",
        "The certificates do not lead to a root that is trusted here ({what}).",
        "証明書をたどっても、信頼されたルートに行き着きません（{what}）。",
        "send the whole chain of this hardware; its maker's roots are listed in the documentation",
        "このハードウェアの証明書チェーン全体を送ってください。信頼するルートは文書に一覧があります",
    ),
    "attestation.certificate_expired": _m(
        "unusable",
        "The certificate of {what} is not valid at this time.",
        "{what}の証明書は、現在有効ではありません。",
        "have the maker issue a new one, or set the clock right",
        "証明書を再発行してもらうか、時計を合わせてください",
    ),
    "attestation.revoked": _m(
        "contraindicated",
        "The certificate of {what} was revoked by its maker.",
        "{what}の証明書は、発行元によって失効しています。",
        "take the machine out of service, and ask its maker",
        "マシンを運用から外し、製造元に確認してください",
    ),
    "attestation.collateral_missing": _m(
        "unusable",
        "There is no collateral for {what} in this installation's cache.",
        "{what}の検証に必要なコラテラルが、この環境のキャッシュにありません。",
        _IMPORT_EN,
        _IMPORT_JA,
    ),
    "attestation.collateral_expired": _m(
        "unusable",
        "The collateral for {what} is not valid at this time.",
        "{what}のコラテラルは、現在有効ではありません。",
        f"fetch a newer one outside and {_IMPORT_EN}",
        f"新しいものを外部で取得し、{_IMPORT_JA}",
    ),
    "attestation.stale": _m(
        "unusable",
        "The challenge ran out before its answer came.",
        "応答が届く前に、チャレンジの期限が切れました。",
        _AGAIN_EN,
        _AGAIN_JA,
    ),
    "attestation.replayed": _m(
        "unusable",
        "This challenge was answered before; an answer counts once.",
        "このチャレンジにはすでに応答があります。応答は一度しか使えません。",
        _AGAIN_EN,
        _AGAIN_JA,
    ),
    "attestation.unknown_challenge": _m(
        "unusable",
        "This site was not given such a challenge.",
        "この拠点に、そのチャレンジは発行されていません。",
        _AGAIN_EN,
        _AGAIN_JA,
    ),
    "attestation.wrong_key": _m(
        "unusable",
        "The {what} does not bind this challenge and this key.",
        "{what}は、このチャレンジと鍵に結び付いていません。",
        "collect the evidence with the nonce of the challenge and the key that is submitted",
        "チャレンジのナンスと、提出する鍵を使って証跡を取得してください",
    ),
    "attestation.debug": _m(
        "contraindicated",
        "The {what} runs in debug mode: its host can read its memory.",
        "{what}はデバッグモードで動いており、ホストからメモリを読み取れます。",
        "start it without debug",
        "デバッグを無効にして起動してください",
    ),
    "attestation.vmpl": _m(
        "contraindicated",
        "The report comes from privilege level {what}, not from the most privileged one.",
        "レポートは最上位ではない特権レベル {what} から出されています。",
        "have the report made at VMPL 0",
        "VMPL 0 でレポートを取得してください",
    ),
    "attestation.tcb_mismatch": _m(
        "unusable",
        "The certificate was issued for another state of the firmware than the report claims.",
        "証明書が示すファームウェアの状態が、レポートと異なります。",
        "send the certificate that belongs to the reported TCB",
        "レポートの TCB に対応する証明書を送ってください",
    ),
    "attestation.wrong_chip": _m(
        "unusable",
        "The certificate belongs to another chip than the report.",
        "証明書とレポートのチップが異なります。",
        "send the certificate of this chip",
        "このチップの証明書を送ってください",
    ),
    "attestation.tcb_floor": _m(
        "contraindicated",
        "The firmware is older than what was approved ({what}).",
        "ファームウェアが承認された版より古いものです（{what}）。",
        "update the machine's firmware",
        "マシンのファームウェアを更新してください",
    ),
    "attestation.tcb_status": _m(
        "contraindicated",
        "Intel says of this platform: {what}.",
        "このプラットフォームに対する Intel の評価は {what} です。",
        "update the machine's firmware, then attest again",
        "ファームウェアを更新し、証明をやり直してください",
    ),
    "attestation.tcb_advice": _m(
        "warning",
        "Intel says of this platform: {what}.",
        "このプラットフォームに対する Intel の評価は {what} です。",
        "follow the advisory, then attest again",
        "勧告に従って対処し、証明をやり直してください",
    ),
    "attestation.claims": _m(
        "unusable",
        "The report does not vouch for the runtime claims that came with it.",
        "レポートは、添えられたランタイムクレームを保証していません。",
        _COLLECT_EN,
        _COLLECT_JA,
    ),
    "attestation.measurement": _m(
        "contraindicated",
        "What runs is not what was approved: {what}.",
        "動作しているものが、承認された基準値と一致しません：{what}。",
        "start the approved software, or approve this one",
        "承認済みのソフトウェアを起動するか、この値を承認してください",
    ),
    "attestation.unapproved": _m(
        "warning",
        "No reference values are approved for {what}.",
        "{what}の基準値が承認されていません。",
        "approve them with `sekisho attestation approve`",
        "`sekisho attestation approve` で承認してください",
    ),
    "attestation.unregistered": _m(
        "warning",
        "The register does not say in which building this hardware stands.",
        "このハードウェアがどの建物にあるか、台帳に記載がありません。",
        "have operator and auditor sign an entry, and import it with `sekisho attestation register`",
        "事業者と監査人が署名した記載を `sekisho attestation register` で取り込んでください",
    ),
    "attestation.wrong_site": _m(
        "contraindicated",
        "The register says that this hardware stands at site {what}.",
        "台帳によると、このハードウェアは拠点 {what} にあります。",
        "find out which is true; a moved machine needs a new entry",
        "事実を確認してください。移設した場合は新しい記載が必要です",
    ),
    "release.token": _m(
        "unusable",
        "The token is not one of ours, has run out, or its site's evidence is not affirmed now.",
        "トークンが無効か期限切れ、または拠点の証跡が現在 affirming ではありません。",
        "attest the workload again; the site itself must be affirmed too",
        "ワークロードの証明をやり直してください。拠点自体の証跡も affirming である必要があります",
    ),
    "release.key": _m(
        "unusable",
        "The key is not the X25519 key that the evidence binds.",
        "鍵が、証跡に結び付いた X25519 鍵ではありません。",
        "use the key whose SubjectPublicKeyInfo was attested",
        "証明した SubjectPublicKeyInfo の鍵を使ってください",
    ),
    "release.not_entitled": _m(
        "unusable",
        "No guarded work of tenant {what} may be done at this site now.",
        "テナント {what} の機密以上の処理は、現在この拠点では許可されていません。",
        "ask `sekisho why` which rule closes the route",
        "`sekisho why` で、どのルールが経路を閉じているか確認してください",
    ),
    "attestation.simulated": _m(
        "warning",
        "This evidence is simulated: no hardware stands behind it.",
        "この証跡はシミュレーションであり、実際のハードウェアの裏付けはありません。",
        "run the agent on a confidential VM",
        "機密 VM 上でエージェントを動かしてください",
    ),
}
"""code → what it says. `{what}` is filled in; it is a technical name, the same in both languages."""


def finding(code: str, what: str = "") -> Finding:
    meaning = CATALOGUE[code]
    return Finding(
        code=code,
        weight=meaning.weight,
        en=meaning.en.format(what=what),
        ja=meaning.ja.format(what=what),
        step_en=meaning.step_en,
        step_ja=meaning.step_ja,
    )


def refuse(code: str, what: str = "", *, bound: bytes = b"") -> Refused:
    return Refused(finding=finding(code, what), bound=bound)

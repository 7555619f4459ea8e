"""The first rules, in Python: what the default Cedar policies are held against in tests. Pure: no I/O, no clock."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import assert_never

from sekisho.federation.countries import country_label
from sekisho.kernel.classes import DataClass
from sekisho.residency.model import ANYBODY, Allowed, Denied, EndpointFacts, Reason, TenantFacts, Verdict

ANY_SITE = "any-site"
SITE_IN_JURISDICTION = "site-in-jurisdiction"
OPERATOR_LAW_IN_JURISDICTION = "operator-law-in-jurisdiction"
EVIDENCE_FRESH = "evidence-fresh"

# What the hash in every decision stands for. Whoever changes a rule below changes this text with it: the
# golden test of the hash is there to remind them.
_RULES_TEXT = """\
sekisho built-in rules, form 1
jurisdiction {jurisdiction}
public: any-site
internal: any-site
confidential: site-in-jurisdiction(site.country == jurisdiction), evidence-fresh(now < evidence_until)
restricted: site-in-jurisdiction(site.country == jurisdiction), \
operator-law-in-jurisdiction(operator.law == jurisdiction), evidence-fresh(now < evidence_until)
"""


class BuiltinPolicy:
    """The rules of the default policies, said a second time and without an engine: an oracle for tests and benches.

    It knows the declared axes only, no attestation and no measured location.

    `public` and `internal`: any site. `confidential`: the machines stand in the jurisdiction. `restricted`: they do,
    and the law over their operator is the jurisdiction's. Guarded classes also need fresh evidence. The operator's
    own country is reported but decides nothing: what can compel an operator is the law over it.
    """

    def __init__(self, *, jurisdiction: str = "JP") -> None:
        self.jurisdiction = jurisdiction
        self._hash = hashlib.sha256(_RULES_TEXT.format(jurisdiction=jurisdiction).encode()).hexdigest()

    @property
    def hash(self) -> str:
        """SHA-256 (hex) over the canonical text of the rules."""
        return self._hash

    def kind_of(self, _tenant: TenantFacts) -> TenantFacts:
        """Nobody is told apart."""
        return ANYBODY

    def decide(self, _tenant: TenantFacts, data_class: DataClass, facts: EndpointFacts, *, now: float) -> Verdict:
        """Allowed with the expiry of the evidence under it, or Denied with every rule that said no."""
        match data_class:
            case DataClass.PUBLIC | DataClass.INTERNAL:
                return Allowed(rules=(ANY_SITE,))
            case DataClass.CONFIDENTIAL:
                rules: tuple[str, ...] = (SITE_IN_JURISDICTION,)
            case DataClass.RESTRICTED:
                rules = (SITE_IN_JURISDICTION, OPERATOR_LAW_IN_JURISDICTION)
            case _:
                assert_never(data_class)
        reasons: list[Reason] = []
        if facts.site_country != self.jurisdiction:
            reasons.append(self._abroad(data_class, facts))
        if OPERATOR_LAW_IN_JURISDICTION in rules and facts.operator_law != self.jurisdiction:
            reasons.append(self._foreign_law(facts))
        # Written this way round, an expiry that is no number (NaN) denies too.
        if not facts.evidence_until > now:
            reasons.append(stale_reason(facts))
        if reasons:
            return Denied(rules=tuple(reason.rule for reason in reasons), reasons=tuple(reasons))
        return Allowed(rules=rules, valid_until=facts.evidence_until)

    def decide_each(
        self, tenant: TenantFacts, data_class: DataClass, facts: Sequence[EndpointFacts], *, now: float
    ) -> tuple[list[Verdict], list[float]]:
        """The same for each, in their order, and until when it holds."""
        verdicts = [self.decide(tenant, data_class, each, now=now) for each in facts]
        return verdicts, [each.evidence_until if each.evidence_until > now else math.inf for each in facts]

    def _abroad(self, data_class: DataClass, facts: EndpointFacts) -> Reason:
        here_en, here_ja = country_label(self.jurisdiction, "en"), country_label(self.jurisdiction, "ja")
        return Reason(
            rule=SITE_IN_JURISDICTION,
            site=facts.site,
            en=(
                f"Site {facts.site} stands in {country_label(facts.site_country, 'en')}; {data_class.label} work is "
                f"served in {here_en} only. An endpoint at a site in {here_en} would change this."
            ),
            ja=(
                f"拠点 {facts.site} は{country_label(facts.site_country, 'ja')}にあります。"
                f"{data_class.label} の処理は{here_ja}国内に限られます。"
                f"{here_ja}国内の拠点にエンドポイントがあれば許可されます。"
            ),
        )

    def _foreign_law(self, facts: EndpointFacts) -> Reason:
        here_en, here_ja = country_label(self.jurisdiction, "en"), country_label(self.jurisdiction, "ja")
        return Reason(
            rule=OPERATOR_LAW_IN_JURISDICTION,
            site=facts.site,
            en=(
                f"Operator {facts.operator} of site {facts.site} is under the law of "
                f"{country_label(facts.operator_law, 'en')}; restricted work needs an operator under the law of "
                f"{here_en}. A site of such an operator, or the class confidential, would change this."
            ),
            ja=(
                f"拠点 {facts.site} の事業者 {facts.operator} は"
                f"{country_label(facts.operator_law, 'ja')}の法の適用を受けます。"
                f"restricted の処理には{here_ja}の法の適用を受ける事業者が必要です。"
                f"そのような事業者の拠点を使うか、データ区分を confidential に下げられれば許可されます。"
            ),
        )


def stale_reason(facts: EndpointFacts) -> Reason:
    """Why evidence that ran out closes an endpoint to guarded work."""
    since = instant(facts.evidence_until)
    return Reason(
        rule=EVIDENCE_FRESH,
        site=facts.site,
        en=(
            f"The evidence about where site {facts.site} stands ran out at {since}. "
            f"Fresh evidence from operator {facts.operator} would change this."
        ),
        ja=(
            f"拠点 {facts.site} の所在を示す証跡は {since} に期限が切れました。"
            f"事業者 {facts.operator} が新しい証跡を提出すれば許可されます。"
        ),
    )


def instant(unix_s: float) -> str:
    """Unix seconds as people read them, in UTC; a number that no calendar has stays a number."""
    try:
        return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{unix_s}"

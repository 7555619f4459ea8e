"""What a finding says, for people, in both languages. The limits of the proof always stand beside the verdict."""

from __future__ import annotations

from typing import Literal, assert_never

import msgspec

from sekisho.federation.countries import country_label
from sekisho.residency.location.earth import LIGHT_KM_PER_MS
from sekisho.residency.location.land import Nearest
from sekisho.residency.location.model import Disc, Finding

Language = Literal["en", "ja"]


class Both(msgspec.Struct, frozen=True):
    """One sentence in both languages."""

    en: str
    ja: str

    def in_(self, language: Language) -> str:
        return self.ja if language == "ja" else self.en


LIMITS = (
    Both(
        "This bounds where the key answered. A relay can hold the key here and compute elsewhere; only a key that "
        "attestation binds to the hardware rules that out.",
        "この結果が示すのは、鍵が応答した場所の範囲です。鍵だけを国内に置き、計算を別の場所で行う中継は、鍵がアテステーションで"
        "ハードウェアに結び付いている場合に限り排除できます。",
    ),
    Both(
        "Congestion makes the proof weaker, never wrong.",
        "混雑は証明を弱めることはあっても、誤らせることはありません。",
    ),
    Both(
        "Land is as Natural Earth 1:10m draws it, by who administers it; that says nothing about whose it is.",
        "陸地は Natural Earth（1:10m）の実効支配に基づく区分によります。領有権についての立場を示すものでは"
        "ありません。",
    ),
)


def headline(finding: Finding) -> Both:
    """The verdict in a sentence."""
    country = finding.claim.country
    en, ja = country_label(country, "en"), country_label(country, "ja")
    margin = abs(finding.margin_km)
    match finding.why:
        case "location.inside":
            return Both(
                f"Proven inside {en}: no foreign land is within reach; the nearest is {margin:,.0f} km beyond it.",
                f"{ja}国内であることが証明されました。到達範囲に国外として扱う陸地はなく、最も近い陸地まで "
                f"{margin:,.0f} km の余裕があります。",
            )
        case "location.foreign_in_reach":
            return Both(
                f"Consistent with the declared place, not proven inside {en}: foreign land lies {margin:,.0f} km "
                f"within reach. An answer {_ms(margin)} ms faster would prove it.",
                f"申告された場所と矛盾しませんが、{ja}国内とは証明されていません。国外として扱う陸地が到達範囲の "
                f"{margin:,.0f} km 内側にあります。応答が {_ms(margin)} ミリ秒速ければ証明できます。",
            )
        case "location.no_land":
            return Both(
                f"Consistent with the declared place; but no coast of {en} is within reach, so no country is proven.",
                f"申告された場所と矛盾しませんが、到達範囲に{ja}の陸地がないため、国内とは証明できません。",
            )
        case "location.declared_outside":
            return Both(
                f"Contradicted: the key answered too fast to be at the declared place, which lies "
                f"{finding.outside_km:,.0f} km out of reach.",
                "申告と矛盾します。応答が速すぎ、申告された場所は到達範囲から "
                f"{finding.outside_km:,.0f} km 外れています。",
            )
        case "location.too_slow":
            names = ", ".join(finding.slow)
            return Both(
                f"Contradicted by the operator's own limit: slower than allowed from {names}. "
                "Slowness alone proves no other place.",
                f"事業者自身が定めた上限に反します。{names} からの応答が上限より遅くなっています。"
                "遅さだけでは、別の場所にあることの証明にはなりません。",
            )
        case "location.unmeasured":
            return Both(
                "Only declared: there is no measurement that still counts.",
                "申告のみです。有効な測定がありません。",
            )
        case _:
            assert_never(finding.why)


def bound(disc: Disc) -> Both:
    """What one landmark knows."""
    en = (
        f"{disc.landmark}: answered in {disc.rtt_ms:.3f} ms, so within {disc.radius_km:,.0f} km against everyone "
        f"({disc.fibre_km:,.0f} km if the networks are honest); the declared place is "
        f"{disc.distance_km:,.0f} km away."
    )
    ja = (
        f"{disc.landmark}: {disc.rtt_ms:.3f} ミリ秒で応答。誰に対しても {disc.radius_km:,.0f} km 以内"
        f"（光ファイバーの速さなら {disc.fibre_km:,.0f} km 以内）。申告された場所までは {disc.distance_km:,.0f} km。"
    )
    if not disc.decides:
        en += " Too slow to bound anything: shown, not decided on."
        ja += "遅すぎて範囲を絞れないため、参考表示にとどめ、判定には使いません。"
    return Both(en, ja)


def land_name(land: Nearest) -> Both:
    """Whose land it is, and where."""
    name = land.country.name
    for south, west, north, east, label in _DISPUTED:
        if south <= land.latitude <= north and west <= land.longitude <= east:
            return Both(f"{label.en} at {_where(land)}", f"{label.ja}、{_where(land)}")
    en = country_label(land.country.code, "en") if land.country.code else name
    ja = country_label(land.country.code, "ja") if land.country.code else _JAPANESE.get(name, name)
    return Both(f"{en} at {_where(land)}", f"{ja}、{_where(land)}")


def _where(land: Nearest) -> str:
    latitude, longitude = land.latitude, land.longitude
    return (
        f"{abs(latitude):.2f}°{'N' if latitude >= 0 else 'S'} {abs(longitude):.2f}°{'E' if longitude >= 0 else 'W'}"
    )


# Named by the place, not by a country, where states do not agree whose it is (south, west, north, east in degrees).
_DISPUTED = (
    (43.3, 145.3, 45.6, 149.0, Both("the four northern islands (disputed)", "北方四島")),
    (37.2, 131.8, 37.3, 131.9, Both("Liancourt Rocks (Takeshima / Dokdo, disputed)", "竹島")),
)
# Land that the data gives no country code, near enough to Japan to be named.
_JAPANESE = {
    "Spratly Is.": "南沙諸島",
    "Scarborough Reef": "スカボロー礁",
}


def report(finding: Finding, language: Language) -> list[str]:
    """All of it, line by line."""
    lines = [headline(finding).in_(language)]
    lines += [bound(disc).in_(language) for disc in finding.discs]
    if finding.land is not None:
        nearest = land_name(finding.land)
        lines.append(
            f"最も近い国外として扱う陸地: {nearest.ja}" if language == "ja" else f"Nearest foreign land: {nearest.en}"
        )
    if finding.fibre_margin_km is not None:
        km = finding.fibre_margin_km
        lines.append(
            Both(
                f"If every network were honest glass fibre, the margin would be {km:,.0f} km "
                "(shown, not decided on).",
                f"すべてが光ファイバーの速さで届いたとすると、余裕は {km:,.0f} km です（参考値、判定には不使用）。",
            ).in_(language)
        )
    return lines + [each.in_(language) for each in LIMITS]


def _ms(km: float) -> str:
    return f"{km * 2 / LIGHT_KM_PER_MS + 0.05:.1f}"

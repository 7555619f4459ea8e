"""Countries (ISO 3166-1 alpha-2) and Japan's prefectures (JIS X 0401)."""

from __future__ import annotations

import re

import msgspec

_COUNTRY = re.compile(r"[A-Z]{2}")


def parse_country(text: str) -> str | None:
    """`JP` → `JP`; None when it is not two upper-case letters (ISO 3166-1 alpha-2 form)."""
    return text if _COUNTRY.fullmatch(text) else None


class Prefecture(msgspec.Struct, frozen=True, kw_only=True):
    """One of the 47 prefectures. `code` is JIS X 0401 (1–47, also ISO 3166-2:JP)."""

    code: int
    ja: str
    en: str

    @classmethod
    def parse(cls, text: str) -> Prefecture | None:
        """`13`, `JP-13`, `東京都`, `東京`, `Tokyo` or `tokyo` → Tokyo."""
        return _PREFECTURES.get(text.strip().lower().removeprefix("jp-").lstrip("0"))


_ROWS = """
北海道 Hokkaido  青森県 Aomori  岩手県 Iwate  宮城県 Miyagi  秋田県 Akita  山形県 Yamagata
福島県 Fukushima  茨城県 Ibaraki  栃木県 Tochigi  群馬県 Gunma  埼玉県 Saitama  千葉県 Chiba
東京都 Tokyo  神奈川県 Kanagawa  新潟県 Niigata  富山県 Toyama  石川県 Ishikawa  福井県 Fukui
山梨県 Yamanashi  長野県 Nagano  岐阜県 Gifu  静岡県 Shizuoka  愛知県 Aichi  三重県 Mie
滋賀県 Shiga  京都府 Kyoto  大阪府 Osaka  兵庫県 Hyogo  奈良県 Nara  和歌山県 Wakayama
鳥取県 Tottori  島根県 Shimane  岡山県 Okayama  広島県 Hiroshima  山口県 Yamaguchi  徳島県 Tokushima
香川県 Kagawa  愛媛県 Ehime  高知県 Kochi  福岡県 Fukuoka  佐賀県 Saga  長崎県 Nagasaki
熊本県 Kumamoto  大分県 Oita  宮崎県 Miyazaki  鹿児島県 Kagoshima  沖縄県 Okinawa
"""
PREFECTURES: tuple[Prefecture, ...] = tuple(
    Prefecture(code=code, ja=ja, en=en)
    for code, (ja, en) in enumerate(zip(_ROWS.split()[::2], _ROWS.split()[1::2], strict=True), 1)
)
_PREFECTURES: dict[str, Prefecture] = {}
for _row in PREFECTURES:
    _short = _row.ja if _row.ja == "北海道" else _row.ja[:-1]
    for _name in (str(_row.code), _row.ja, _short, _row.en.lower()):
        _PREFECTURES[_name] = _row

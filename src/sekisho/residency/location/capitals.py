"""Where the prefectures' offices stand, and the landmarks that the study of them assumes.

Positions of the 47 prefectural offices in degrees, rounded to a hundredth: good to about a kilometre.
"""

from __future__ import annotations

import msgspec

from sekisho.kernel.jurisdictions import PREFECTURES, Prefecture


class Capital(msgspec.Struct, frozen=True, kw_only=True):
    prefecture: Prefecture
    en: str
    ja: str
    latitude: float
    longitude: float


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A place for a landmark; `default`: one of the default federation's cities."""

    id: str
    en: str
    ja: str
    latitude: float
    longitude: float
    default: bool = True


_ROWS = """
札幌市 Sapporo 43.06 141.35      青森市 Aomori 40.82 140.74        盛岡市 Morioka 39.70 141.15
仙台市 Sendai 38.27 140.87       秋田市 Akita 39.72 140.10         山形市 Yamagata 38.24 140.36
福島市 Fukushima 37.75 140.47    水戸市 Mito 36.34 140.45          宇都宮市 Utsunomiya 36.57 139.88
前橋市 Maebashi 36.39 139.06     さいたま市 Saitama 35.86 139.65   千葉市 Chiba 35.60 140.12
東京 Tokyo 35.69 139.69          横浜市 Yokohama 35.45 139.64      新潟市 Niigata 37.90 139.02
富山市 Toyama 36.70 137.21       金沢市 Kanazawa 36.59 136.63      福井市 Fukui 36.07 136.22
甲府市 Kofu 35.66 138.57         長野市 Nagano 36.65 138.18        岐阜市 Gifu 35.39 136.72
静岡市 Shizuoka 34.98 138.38     名古屋市 Nagoya 35.18 136.91      津市 Tsu 34.73 136.51
大津市 Otsu 35.00 135.87         京都市 Kyoto 35.02 135.76         大阪市 Osaka 34.69 135.52
神戸市 Kobe 34.69 135.18         奈良市 Nara 34.69 135.83          和歌山市 Wakayama 34.23 135.17
鳥取市 Tottori 35.50 134.24      松江市 Matsue 35.47 133.05        岡山市 Okayama 34.66 133.93
広島市 Hiroshima 34.40 132.46    山口市 Yamaguchi 34.19 131.47     徳島市 Tokushima 34.07 134.56
高松市 Takamatsu 34.34 134.04    松山市 Matsuyama 33.84 132.77     高知市 Kochi 33.56 133.53
福岡市 Fukuoka 33.61 130.42      佐賀市 Saga 33.25 130.30          長崎市 Nagasaki 32.74 129.87
熊本市 Kumamoto 32.79 130.74     大分市 Oita 33.24 131.61          宮崎市 Miyazaki 31.91 131.42
鹿児島市 Kagoshima 31.56 130.56  那覇市 Naha 26.21 127.68
"""
_words = _ROWS.split()
CAPITALS: tuple[Capital, ...] = tuple(
    Capital(prefecture=prefecture, ja=ja, en=en, latitude=float(latitude), longitude=float(longitude))
    for prefecture, ja, en, latitude, longitude in zip(
        PREFECTURES, _words[::4], _words[1::4], _words[2::4], _words[3::4], strict=True
    )
)

MARKS: tuple[Mark, ...] = (
    Mark(id="tokyo", en="Tokyo", ja="東京", latitude=35.68, longitude=139.77),
    Mark(id="osaka", en="Osaka", ja="大阪", latitude=34.69, longitude=135.50),
    Mark(id="ishikari", en="Ishikari", ja="石狩", latitude=43.19, longitude=141.33),
    Mark(id="fukuoka", en="Fukuoka", ja="福岡", latitude=33.59, longitude=130.40),
    # Okinawa's cables end here; no other landmark comes near it
    Mark(id="naha", en="Naha", ja="那覇", latitude=26.21, longitude=127.68, default=False),
    # halfway between Tokyo and Ishikari, where the nearest foreign land is furthest
    Mark(id="sendai", en="Sendai", ja="仙台", latitude=38.27, longitude=140.87, default=False),
    # western Honshu and Shikoku: between Osaka and Fukuoka, which is only 200 km from Busan
    Mark(id="kochi", en="Kochi", ja="高知", latitude=33.56, longitude=133.53, default=False),
    # southern Kyushu, which no other one proves
    Mark(id="kagoshima", en="Kagoshima", ja="鹿児島", latitude=31.56, longitude=130.56, default=False),
)

"""Landmarks, and what they sign: how fast a site's key answered at a known place."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from sekisho.federation.challenge import (
    PrivateKey,
    answered,
    landmark_name,
    read_question,
    read_spki,
    sign,
    signed,
    site_name,
    spki,
)

_CONTEXT = b"sekisho/location-measurement/v1\n"
# The question's time and the measurement's are of one machine's clock; a burst takes seconds.
_QUESTION_AGE_S = 60.0

Latitude = Annotated[float, msgspec.Meta(ge=-90, le=90)]
Longitude = Annotated[float, msgspec.Meta(ge=-180, le=180)]


class Landmark(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A prober at a known place. `spki`: its key (DER SubjectPublicKeyInfo; base64 in JSON).
    `position_error_km`: within this of the position it stands."""

    id: str
    latitude: Latitude
    longitude: Longitude
    position_error_km: Annotated[float, msgspec.Meta(ge=0, le=1000)]
    spki: bytes


class Measurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One burst. `rtt_ns` is the least time between asking and a valid answer; nothing is taken off it.

    `question` and `answer` are the exchange that took this time, so that anybody can check the site's signature;
    `exchanges` is a SHA-256 over all of the burst. `at` in Unix seconds, by the landmark's clock.
    """

    schema: Literal[1] = 1
    landmark: str
    latitude: Latitude
    longitude: Longitude
    position_error_km: Annotated[float, msgspec.Meta(ge=0, le=1000)]
    site: str
    site_spki: bytes
    transport: Literal["udp", "tcp"]
    sent: int
    answered: int
    rtt_ns: Annotated[int, msgspec.Meta(gt=0, le=3_600_000_000_000)]
    question: bytes
    answer: bytes
    exchanges: str
    at: Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class SignedMeasurement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`body` is the JSON of a Measurement, byte for byte as it was signed by the landmark's key."""

    body: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of body and signature."""
        return hashlib.sha256(hashlib.sha256(self.body).digest() + self.signature).hexdigest()


class MeasurementRefused(msgspec.Struct, frozen=True, kw_only=True):
    """Why a measurement does not count, and what to do."""

    code: Literal[
        "measurement.unreadable",
        "measurement.unknown_landmark",
        "measurement.signature",
        "measurement.moved",
        "measurement.other_site",
        "measurement.answer",
    ]
    what: str
    mend: str


def sign_measurement(measurement: Measurement, key: PrivateKey) -> SignedMeasurement:
    body = msgspec.json.encode(measurement)
    return SignedMeasurement(body=body, signature=sign(key, _CONTEXT + body))


def check_measurement(
    given: SignedMeasurement, *, landmarks: Mapping[str, Landmark], site: str, site_keys: tuple[bytes, ...]
) -> Measurement | MeasurementRefused:
    """The measurement, if a landmark that we know signed it and a key of this site answered.

    `site_keys` are DER SubjectPublicKeyInfos. How old it may be is for the verdict to say.
    """
    try:
        found = msgspec.json.decode(given.body, type=Measurement)
    except (msgspec.DecodeError, ValueError) as error:
        return MeasurementRefused(
            code="measurement.unreadable",
            what=f"the measurement can't be read: {error}",
            mend="send what `sekisho.federation.prober` made",
        )
    landmark = landmarks.get(found.landmark)
    if landmark is None:
        return MeasurementRefused(
            code="measurement.unknown_landmark",
            what=f"`{found.landmark}` is no landmark of ours",
            mend="register it with its place and key first",
        )
    landmark_key = read_spki(landmark.spki)
    if landmark_key is None or not signed(landmark_key, given.signature, _CONTEXT + given.body):
        return MeasurementRefused(
            code="measurement.signature",
            what=f"the measurement is not signed with the key of `{found.landmark}`",
            mend="measure again from that landmark, or renew its key in the register",
        )
    return _about(found, landmark, site, site_keys) or found


def _about(
    found: Measurement, landmark: Landmark, site: str, site_keys: tuple[bytes, ...]
) -> MeasurementRefused | None:
    """Whether what a known landmark signed is about its registered place, this site and a real answer."""
    where = (found.latitude, found.longitude, found.position_error_km)
    if where != (landmark.latitude, landmark.longitude, landmark.position_error_km):
        return MeasurementRefused(
            code="measurement.moved",
            what=f"`{found.landmark}` measured from another place than it is registered at",
            mend="correct the register or the landmark's settings, then measure again",
        )
    if found.site != site or found.site_spki not in site_keys:
        return MeasurementRefused(
            code="measurement.other_site",
            what=f"the measurement is about another site or key than those of `{site}`",
            mend="measure again with the key that is enrolled now",
        )
    if not _answer_fits(found, landmark):
        return MeasurementRefused(
            code="measurement.answer",
            what="the site's answer does not fit the landmark's question",
            mend="measure again",
        )
    return None


def _answer_fits(found: Measurement, landmark: Landmark) -> bool:
    site_key, question = read_spki(found.site_spki), read_question(found.question)
    return (
        site_key is not None
        and question is not None
        and question.site == site_name(found.site)
        and question.landmark == landmark_name(landmark.spki)
        and abs(question.asked_ms / 1000 - found.at) <= _QUESTION_AGE_S
        and answered(found.question, found.answer, site_key)
    )


def landmark_of(id: str, *, latitude: float, longitude: float, position_error_km: float, key: PrivateKey) -> Landmark:
    """The entry in the register that belongs to a landmark's own key."""
    return Landmark(
        id=id, latitude=latitude, longitude=longitude, position_error_km=position_error_km, spki=spki(key)
    )

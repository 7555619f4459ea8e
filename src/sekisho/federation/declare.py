"""What an operator declares of a site, in the one form that it signs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from sekisho.federation.countries import is_country
from sekisho.federation.model import Declaration, Site
from sekisho.federation.signing import declaration_signed, sign_declaration
from sekisho.kernel.errors import SekishoError
from sekisho.kernel.ids import NAME

FORM = 1
MAX_BYTES = 32 << 10
_MAX_LIST = 200
_PRINTABLE = re.compile(r"[^\x00-\x1f\x7f]{0,200}")

Degrees = Annotated[float, Meta(ge=-180, le=180)]


class DeclarationRefused(SekishoError):
    """A declaration that can't be read, or that says what can't be so."""

    code = "declaration.unreadable"


class SiteDeclaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Place, law, ownership, subcontractors and readers of one site. Times in Unix seconds."""

    form: int = FORM
    operator: str
    site: str
    name: str = ""
    country: str
    prefecture: Annotated[int, Meta(ge=1, le=47)] | None = None
    latitude: Annotated[float, Meta(ge=-90, le=90)] | None = None
    longitude: Degrees | None = None
    simulated: bool = False
    declared_at: float = 0.0
    valid_until: float
    declaration: Declaration = Declaration()

    def canonical(self) -> bytes:
        """The bytes that are signed: JSON with sorted members and no white space."""
        return _encode(self)

    def as_site(self, *, valid_until: float) -> Site:
        """The site that this declares, its evidence standing until then at the longest."""
        return Site(
            id=self.site,
            operator=self.operator,
            name=self.name or self.site,
            country=self.country,
            prefecture=self.prefecture,
            latitude=self.latitude,
            longitude=self.longitude,
            simulated=self.simulated,
            enrolled=True,
            valid_until=min(self.valid_until, valid_until),
            declaration=self.declaration,
        )


class SignedDeclaration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that `sekisho site declare` writes. `operator_key`: hex of the Ed25519 key that signed."""

    declaration: SiteDeclaration
    operator_key: str
    signature: bytes


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode_signed = msgspec.json.Decoder(SignedDeclaration).decode


def sign(declaration: SiteDeclaration, key: Ed25519PrivateKey) -> SignedDeclaration:
    """Signed by the operator. Raises DeclarationRefused for what no control plane would take."""
    check(declaration)
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return SignedDeclaration(
        declaration=declaration,
        operator_key=public.hex(),
        signature=sign_declaration(key, declaration.canonical()),
    )


def encode_signed(signed: SignedDeclaration) -> bytes:
    return _encode(signed)


def read_signed(data: bytes) -> SignedDeclaration:
    """A signed declaration whose values can be so; whose signature it is, is not asked here."""
    if len(data) > MAX_BYTES:
        raise DeclarationRefused(f"the declaration is longer than {MAX_BYTES} bytes", hint="send less")
    try:
        signed = _decode_signed(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DeclarationRefused(
            f"the declaration can't be read: {error}", hint="make it with `sekisho site declare`"
        ) from None
    check(signed.declaration)
    return signed


def is_signed_by(signed: SignedDeclaration, key: Ed25519PublicKey) -> bool:
    return declaration_signed(key, signed.signature, signed.declaration.canonical())


def check(declaration: SiteDeclaration) -> None:
    """Raises DeclarationRefused with all that can't be so."""
    wrong = list(_wrong(declaration))
    if wrong:
        raise DeclarationRefused(
            "the declaration says what can't be so: " + "; ".join(wrong), hint="mend these and sign it again"
        )


def _wrong(made: SiteDeclaration) -> Iterator[str]:
    inner = made.declaration
    if made.form != FORM:
        yield f"`form` is {made.form}, this version reads {FORM}"
    for field in ("operator", "site"):
        if not NAME.fullmatch(getattr(made, field)):
            yield f"`{field}` is no id (a-z, 0-9, `.`, `_`, `-`, up to 64 characters)"
    if made.prefecture is not None and made.country != "JP":
        yield f"a site in {made.country} has a prefecture of Japan"
    if (made.latitude is None) != (made.longitude is None):
        yield "`latitude` and `longitude` go together"
    if not 0 <= inner.foreign_owned_percent <= 100:
        yield "`foreign_owned_percent` is not from 0 to 100"
    if inner.log_retention_days < 0:
        yield "`log_retention_days` is negative"
    yield from _wrong_countries(made)
    yield from _wrong_texts(made)


def _wrong_countries(made: SiteDeclaration) -> Iterator[str]:
    inner = made.declaration
    named = [("country", made.country)]
    named += [(name, code) for name, code in (("law", inner.law), ("owner_country", inner.owner_country)) if code]
    named += [("foreign_laws", code) for code in inner.foreign_laws]
    for each in inner.subcontractors:
        named += [("subcontractors.country", each.country), ("subcontractors.law", each.law)]
    for name in dict.fromkeys(name for name, code in named if not is_country(code)):
        yield f"`{name}` has what is no country code (ISO 3166-1)"


def _wrong_texts(made: SiteDeclaration) -> Iterator[str]:
    inner = made.declaration
    lists = (inner.foreign_laws, inner.readers, inner.subcontractors, *(each.tasks for each in inner.subcontractors))
    if any(len(each) > _MAX_LIST for each in lists):
        yield f"a list has more than {_MAX_LIST} members"
    texts = [made.name, inner.court, *inner.readers]
    for each in inner.subcontractors:
        texts += [each.name, *each.tasks]
    if not all(_PRINTABLE.fullmatch(text) for text in texts):
        yield "a text is longer than 200 characters or has control characters"

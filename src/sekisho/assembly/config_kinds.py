"""The kinds of values that people write in the configuration, and how a refusal calls them."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

DURATION_PATTERN = r"^\d+(\.\d+)?(ms|s|m|h|d)$"
SIZE_PATTERN = r"^\d+(B|KiB|MiB|GiB)$"
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"
MODEL_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:/@+-]{0,126}[A-Za-z0-9])?$"
LISTEN_PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):\d{1,5}$"

# `title` is how a refusal calls the kind of value; the first of `examples` is how it shows the right form.
Name = Annotated[
    str,
    Meta(
        title="an id (a-z, 0-9, `.`, `_`, `-`, up to 64 characters)",
        pattern=NAME_PATTERN,
        examples=["sakura-ishikari"],
    ),
]
ModelName = Annotated[
    str,
    Meta(title="a model name (letters, digits and `._:/@+-`)", pattern=MODEL_PATTERN, examples=["smollm2-135m"]),
]
Country = Annotated[
    str,
    Meta(title="a country code (ISO 3166-1, two capital letters)", pattern="^[A-Z]{2}$", examples=["JP"]),
]
Duration = Annotated[str, Meta(title="a duration", pattern=DURATION_PATTERN, examples=["30s", "5ms", "24h"])]
Size = Annotated[str, Meta(title="a size", pattern=SIZE_PATTERN, examples=["16MiB", "16KiB"])]
Listen = Annotated[
    str, Meta(title="an address to listen on", pattern=LISTEN_PATTERN, examples=["127.0.0.1:8080", "[::1]:8080"])
]
Text = Annotated[str, Meta(title="text", min_length=1, max_length=200, examples=["Sakura Internet"])]
FilePath = Annotated[str, Meta(title="a file path", min_length=1, max_length=4096, examples=["secrets/site.key"])]
Pin = Annotated[
    str,
    Meta(
        title="a pin (`sha256:` and 64 hex digits of the certificate's SubjectPublicKeyInfo)",
        pattern="^sha256:[0-9a-f]{64}$",
        examples=["sha256:" + "0" * 64],
    ),
]
KeyText = Annotated[
    str,
    # `secret`: whatever is wrong with it, a refusal never shows the value
    Meta(title="a key hash (made by `sekisho key hash`)", examples=["sha256:…"], extra={"secret": True}),
]
Count = Annotated[int, Meta(title="a whole number of at least 1", ge=1, le=1_000_000_000, examples=[8])]
Percent = Annotated[int, Meta(title="a whole number from 0 to 100", ge=0, le=100, examples=[0])]
Days = Annotated[int, Meta(title="a whole number of days", ge=0, le=36_500, examples=[365])]
Slots = Annotated[int, Meta(title="a whole number from 1 to 100000", ge=1, le=100_000, examples=[8])]


def says(text: str, **more: Any) -> Any:
    return Meta(description=text, **more)


class RawTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. Fields that it does not name are refused."""

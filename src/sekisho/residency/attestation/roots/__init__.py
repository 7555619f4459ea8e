"""The makers' roots that are trusted here. They lie beside this file; where each is from: roots/SOURCES.md."""

from __future__ import annotations

import functools
from importlib import resources

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding


@functools.cache
def root(name: str) -> bytes:
    """DER of `name.pem` in this folder."""
    text = resources.files(__package__).joinpath(f"{name}.pem").read_bytes()
    return x509.load_pem_x509_certificate(text).public_bytes(Encoding.DER)


def present(name: str) -> bool:
    return resources.files(__package__).joinpath(f"{name}.pem").is_file()

"""What Litestar hands to a route, by name; `assembly` provides it."""

from __future__ import annotations

from typing import Any, TypeAlias

from litestar import Request
from litestar.di import NamedDependency
from litestar.params import URLEncodedBody

from sekisho.console.services import Control
from sekisho.console.session import Attempts, Sessions

Asked: TypeAlias = Request[Any, Any, Any]
TheControl: TypeAlias = NamedDependency[Control]
TheSessions: TypeAlias = NamedDependency[Sessions]
TheAttempts: TypeAlias = NamedDependency[Attempts]
# The name under which the change log has what this request changes.
TheActor: TypeAlias = NamedDependency[str]
Form: TypeAlias = URLEncodedBody[dict[str, str]]

"""No proxy: what the load generator and the upstream cost by themselves."""

from __future__ import annotations

from bench.peers.base import Peer


class Direct(Peer):
    name = "direct"
    what_is_on = "no proxy at all"

    def start(self, port: int, upstream: int) -> None:
        self.port = upstream

    @classmethod
    def version(cls) -> str:
        return "–"

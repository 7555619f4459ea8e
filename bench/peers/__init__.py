"""The peers: one class each, all started, asked and stopped in the same way."""

from __future__ import annotations

from bench.peers.bare import Bare
from bench.peers.base import Peer
from bench.peers.direct import Direct
from bench.peers.envoy import Envoy
from bench.peers.litellm import LiteLlm
from bench.peers.nginx import Nginx
from bench.peers.sekisho import Sekisho
from bench.peers.sglang import Sglang
from bench.peers.vllm import Vllm

PEERS: tuple[type[Peer], ...] = (Direct, Nginx, Bare, Sekisho, Envoy, Sglang, Vllm, LiteLlm)
BY_NAME = {peer.name: peer for peer in PEERS}
NEED_WHEELS = frozenset({"envoy", "sglang", "vllm", "litellm"})

__all__ = ["BY_NAME", "NEED_WHEELS", "PEERS", "Peer"]

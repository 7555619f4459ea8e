"""Which logs count, and how many of which witnesses must have cosigned: the text format of c2sp.org/tlog-policy.

log <vkey> [<url>]
witness <name> <vkey> [<url>]
group <name> all|any|<k> <name>...
quorum <name>|none
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import combinations

import msgspec

from sekisho.kernel.errors import SekishoError
from sekisho.ledger.tlog.keys import Algorithm, VerifierKey
from sekisho.ledger.tlog.note import NoteRefused, Signature

NO_QUORUM = "none"
MAX_POLICY_BYTES = 1 << 20
_LOG_TYPES = (Algorithm.ED25519, Algorithm.ML_DSA_44)
_WITNESS_TYPES = (Algorithm.COSIGNATURE, Algorithm.ML_DSA_44)


class PolicyRefused(SekishoError):
    """A text that is no policy, with the line that is wrong."""

    code = "policy.malformed"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    key: VerifierKey
    url: str = ""


class Witness(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the policy's own; the name under its signatures is `key.name`."""

    name: str
    key: VerifierKey
    url: str = ""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Has cosigned when at least `threshold` of its members (witnesses or groups) have."""

    name: str
    threshold: int
    members: tuple[str, ...]


class TrustPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed policy. `quorum` names a witness or a group, or is `none`."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    @property
    def keys(self) -> tuple[VerifierKey, ...]:
        return (*(log.key for log in self.logs), *(witness.key for witness in self.witnesses))

    def log_keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """The keys that sign for this log, the rotated ones among them."""
        return tuple(log.key for log in self.logs if log.key.name == origin)

    def satisfied(self, by: Collection[VerifierKey]) -> bool:
        """Whether cosignatures by these keys are a quorum."""
        return self._has(self.quorum, {witness.name for witness in self.witnesses if witness.key in by})

    def _has(self, name: str, cosigned: Collection[str]) -> bool:
        if name == NO_QUORUM or name in cosigned:
            return True
        group = next((group for group in self.groups if group.name == name), None)
        if group is None:
            return False
        return sum(self._has(member, cosigned) for member in group.members) >= group.threshold

    def smallest(self, signatures: Iterable[Signature]) -> tuple[Signature, ...] | None:
        """As few and as short of these (verified) cosignatures as make a quorum; None when all of them don't.

        Exhaustive up to 12 witnesses; above that, what can be left out one by one is left out.
        """
        at = [(signature, key) for signature in signatures if (key := self._maker(signature))]
        if not self.satisfied([key for _, key in at]):
            return None
        at.sort(key=lambda pair: (len(pair[0].data), pair[0].name))
        if len(at) <= 12:
            for count in range(len(at) + 1):
                for chosen in combinations(at, count):
                    if self.satisfied([key for _, key in chosen]):
                        return tuple(signature for signature, _ in chosen)
        for candidate in reversed(at):
            rest = [pair for pair in at if pair is not candidate]
            if self.satisfied([key for _, key in rest]):
                at = rest
        return tuple(signature for signature, _ in at)

    def _maker(self, signature: Signature) -> VerifierKey | None:
        return next((witness.key for witness in self.witnesses if witness.key.made(signature)), None)

    def encode(self) -> bytes:
        """The text of the policy."""
        lines = [_line("log", log.key.vkey, log.url) for log in self.logs]
        lines += [_line("witness", witness.name, witness.key.vkey, witness.url) for witness in self.witnesses]
        lines += [_line("group", group.name, str(group.threshold), *group.members) for group in self.groups]
        lines.append(_line("quorum", self.quorum))
        return "".join(lines).encode("utf-8", "surrogateescape")

    @classmethod
    def parse(cls, data: bytes) -> TrustPolicy:
        """PolicyRefused says which line is wrong and why."""
        if len(data) > MAX_POLICY_BYTES:
            raise PolicyRefused(f"a policy of more than {MAX_POLICY_BYTES} bytes is not read")
        # Octets above 0x7F are opaque to the format; surrogateescape keeps them as they are.
        text = data.decode("utf-8", "surrogateescape")
        reader = _Reader()
        for number, line in enumerate(text.split("\n"), 1):
            try:
                reader.take(line)
            except NoteRefused as error:
                raise PolicyRefused(f"line {number}: {error.fact}") from None
        if reader.quorum is None:
            raise PolicyRefused("a policy says its quorum in one line", hint="`quorum none` asks for no cosignatures")
        return cls(
            logs=tuple(reader.logs),
            witnesses=tuple(reader.witnesses),
            groups=tuple(reader.groups),
            quorum=reader.quorum,
        )


def majority(operators: Mapping[str, tuple[str, ...]]) -> tuple[tuple[Group, ...], str]:
    """Groups that ask for more than half of the operators, one witness of each: any two quorums share an operator.

    `operators`: operator → names of its witnesses. The second value is the quorum's name.
    """
    groups = [Group(name=f"op-{name}", threshold=1, members=members) for name, members in sorted(operators.items())]
    needed = len(groups) // 2 + 1
    groups.append(Group(name="majority", threshold=needed, members=tuple(group.name for group in groups)))
    return tuple(groups), "majority"


class _Reader:
    """Takes a policy line by line."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self._names: set[str] = set()
        self._in_group: set[str] = set()
        self._material: set[tuple[str, bytes]] = set()

    def take(self, line: str) -> None:
        if any((char < " " and char != "\t") or char == "\x7f" for char in line):
            raise NoteRefused("a control character")
        items = line.replace("\t", " ").strip(" ").split(" ")
        items = [item for item in items if item]
        if not items or items[0].startswith("#"):
            return
        match items:
            case ["log", vkey, *url] if len(url) <= 1:
                self.logs.append(Log(key=self._key("log", vkey, _LOG_TYPES), url="".join(url)))
            case ["witness", name, vkey, *url] if len(url) <= 1:
                self._define(name)
                key = self._key("witness", vkey, _WITNESS_TYPES)
                self.witnesses.append(Witness(name=name, key=key, url="".join(url)))
            case ["group", name, threshold, *members] if members:
                self._group(name, threshold, members)
            case ["quorum", name]:
                if self.quorum is not None:
                    raise NoteRefused("a second quorum")
                if name != NO_QUORUM and name not in self._names:
                    raise NoteRefused(f"nothing before this line is named {name}")
                self.quorum = name
            case _:
                raise NoteRefused("neither log, witness, group nor quorum, each with its items")

    def _define(self, name: str) -> None:
        if name in self._names or name == NO_QUORUM:
            raise NoteRefused(f"the name {name} is taken")
        self._names.add(name)

    def _key(self, what: str, vkey: str, types: tuple[Algorithm, ...]) -> VerifierKey:
        key = VerifierKey.parse(vkey)
        if key.algorithm not in types:
            raise NoteRefused(f"a {what} does not sign with {key.algorithm.label}")
        if (what, key.public) in self._material:
            raise NoteRefused(f"the key of {key.name} stands twice, under whatever name")
        self._material.add((what, key.public))
        return key

    def _group(self, name: str, threshold: str, members: list[str]) -> None:
        for member in members:
            if member not in self._names or member == name:
                raise NoteRefused(f"nothing before this line is named {member}")
            # Otherwise one witness could count twice.
            if member in self._in_group:
                raise NoteRefused(f"{member} is in a group already")
            self._in_group.add(member)
        self._define(name)
        words = {"all": len(members), "any": 1}
        decimal = threshold.isascii() and threshold.isdecimal() and len(threshold) < 7
        needed = words.get(threshold, int(threshold) if decimal else 0)
        if not 1 <= needed <= len(members):
            raise NoteRefused(f"the threshold {threshold} is neither all, any, nor from 1 to {len(members)}")
        self.groups.append(Group(name=name, threshold=needed, members=tuple(members)))


def _line(*items: str) -> str:
    return " ".join(item for item in items if item) + "\n"

"""`sekisho key new|hash`: the commands of the group `key` that need nothing that runs.

A key is read from standard input or a hidden prompt, never from an argument: arguments lie in the shell's history
and in the process table, where other users read them.
"""

from __future__ import annotations

import sys

import click

from sekisho.cli import texts
from sekisho.cli.texts import Text
from sekisho.federation.keys import hash_key, key_fault, new_key
from sekisho.kernel.errors import SekishoError

NEW = Text(
    "Make a key and print it with its hash; nothing is stored.",
    "キーを作り、ハッシュとともに表示します。保存はしません。",
)
HASH = Text(
    "Print the hash of a key, for `keys = […]`. The key comes from standard input or a hidden prompt.",
    "キーのハッシュ（`keys = […]` に書く形）を表示します。キーは標準入力か、画面に出ない入力で渡します。",
)
ASK_KEY = Text("Key (it is not shown)", "キー（画面には出ません）")


class KeyRefused(SekishoError):
    """What came is no key that could be used."""

    code = "key.unusable"


@click.group(help=str(texts.KEY))
def key() -> None:
    """The help is `texts.KEY`."""


@key.command("new", help=str(NEW))
def new() -> None:
    """The help is `NEW`."""
    made = new_key()
    click.echo(f"key   {made}")
    click.echo(f"hash  {hash_key(made)}")


@key.command("hash", help=str(HASH))
def hash_() -> None:
    """The help is `HASH`."""
    if sys.stdin.isatty():
        text = click.prompt(str(ASK_KEY), hide_input=True, err=True)
    else:
        # `echo key | sekisho key hash` adds a line end that is not the key's
        text = sys.stdin.readline().rstrip("\r\n")
    fault = key_fault(text)
    if fault is not None:
        raise KeyRefused(f"what came {fault}" if text else "no key came", hint="make one with `sekisho key new`")
    click.echo(hash_key(text))

"""Changing an agent's key: made here, signed by both keys, taken by the control plane, then put in its place."""

from __future__ import annotations

from pathlib import Path

from sekisho.assembly.site_control import ControlClient
from sekisho.assembly.site_home import SiteHome, load_enrolment, load_key, prepare_next_key, take_next_key
from sekisho.federation.report import KeyChanged, NewKey
from sekisho.federation.signing import agent_sign, rotation_text, spki_of


def rotate(root: Path) -> KeyChanged:
    """An agent that runs takes the new key over by itself. When the answer is lost the next key stays in the
    directory: run it again, or let the agent find out."""
    home = SiteHome(root)
    enrolment = load_enrolment(home)
    old, new = load_key(home.key), prepare_next_key(home)
    spki = spki_of(new.public_key())
    text = rotation_text(site=enrolment.site, old=spki_of(old.public_key()), new=spki)
    body = NewKey(spki=spki, proof=agent_sign(new, text))
    changed = ControlClient(enrolment).call(old, "/agent/v1/rotate", body, KeyChanged)
    take_next_key(home)
    return changed

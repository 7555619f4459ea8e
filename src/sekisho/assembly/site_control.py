"""The agent's side of /agent/v1: requests signed by its key, answers believed only with the control plane's
signature."""

from __future__ import annotations

import base64
import binascii
import http.client
import itertools
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from sekisho.assembly.site_home import Enrolment
from sekisho.federation.border import SignedStatement
from sekisho.federation.border_service import Accepted
from sekisho.federation.declare import SignedDeclaration, encode_signed
from sekisho.federation.errors import AgentRefused
from sekisho.federation.landmark import SignedMeasurement
from sekisho.federation.report import HandedIn, HandIn, Measurements, MeasurementsTaken
from sekisho.federation.signing import (
    COUNTER_HEADER,
    SIGNATURE_HEADER,
    SITE_HEADER,
    agent_sign,
    answer_text,
    control_signed,
    enrolment_text,
    parse_operator_key,
    request_text,
    spki_of,
)
from sekisho.kernel.errors import SekishoError

T = TypeVar("T", bound=msgspec.Struct)
_TIMEOUT_S = 15.0
_AT_ONCE = 256
_MAX_ANSWER_BYTES = 4 << 20


class ControlAway(SekishoError):
    """The control plane did not answer, or what answered is not the one that invited this site."""

    code = "site.control_away"


class _Problem(msgspec.Struct, kw_only=True):
    detail: str = ""
    code: str = "site.control_answer"
    hint: str = ""


def counters() -> Callable[[], int]:
    """Microseconds of the wall clock, each above the one before."""
    last = itertools.accumulate(itertools.repeat(0), lambda before, _: max(before + 1, time.time_ns() // 1000))
    next(last)
    return last.__next__


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    signature: str
    body: bytes


class ControlClient:
    """One request at a time, from whatever thread: a request that overtook another would make that one look
    replayed."""

    def __init__(self, enrolment: Enrolment) -> None:
        self._enrolment = enrolment
        self._counter = counters()
        control = parse_operator_key(enrolment.control_key)  # any Ed25519 key in hex
        if control is None:
            raise ControlAway("enrolment.json has no control plane's key", hint="enrol again")
        self._control = control
        self._one_by_one = threading.Lock()

    def call(self, key: ec.EllipticCurvePrivateKey, path: str, body: msgspec.Struct, answer: type[T]) -> T:
        """The answer, whose signature was checked. Raises AgentRefused when control says no, ControlAway
        otherwise."""
        with self._one_by_one:
            return self._call(key, path, body, answer)

    def _call(self, key: ec.EllipticCurvePrivateKey, path: str, body: msgspec.Struct, answer: type[T]) -> T:
        site = self._enrolment.site
        data = msgspec.json.encode(body)
        counter = self._counter()
        text = request_text(method="POST", path=path, site=site, counter=counter, body=data)
        headers = {
            SITE_HEADER: site,
            COUNTER_HEADER: str(counter),
            SIGNATURE_HEADER: base64.b64encode(agent_sign(key, text)).decode(),
        }
        response = _post(self._enrolment.control, self._enrolment.ca, path, data, headers)
        if response.status >= 400:
            raise _refusal(response)
        if not self._believed(response, answer_text(site=site, counter=counter, body=response.body)):
            raise ControlAway(
                f"what answers at {self._enrolment.control} is not the control plane that invited this site",
                code="site.control_unbelieved",
                hint="somebody may stand between; the agent goes on with what it was told before",
            )
        return _decoded(response, answer)

    def _believed(self, response: _Answer, text: bytes) -> bool:
        try:
            signature = base64.b64decode(response.signature, validate=True)
        except (binascii.Error, ValueError):
            return False
        return control_signed(self._control, signature, text)


def hand_in(
    control: str,
    *,
    ca: str | None,
    token: str,
    key: ec.EllipticCurvePrivateKey,
    declaration: SignedDeclaration,
) -> HandedIn:
    """Enrols: the one call that no approved key signs. Raises AgentRefused with control's own code, or
    ControlAway."""
    spki = spki_of(key.public_key())
    text = enrolment_text(token=token, spki=spki, declaration=declaration.declaration.canonical())
    body = HandIn(
        token=token,
        spki=spki,
        proof=agent_sign(key, text),
        declaration=msgspec.Raw(encode_signed(declaration)),
    )
    response = _post(control, ca, "/agent/v1/enrol", msgspec.json.encode(body), {})
    if response.status >= 400:
        raise _refusal(response)
    return _decoded(response, HandedIn)


def hand_in_measurements(control: str, signed: tuple[SignedMeasurement, ...], *, ca: str | None) -> MeasurementsTaken:
    """Brings measurements to control; their own signatures speak for them. Raises AgentRefused or ControlAway."""
    body = msgspec.json.encode(Measurements(measurements=signed))
    response = _post(control, ca, "/agent/v1/measurements", body, {})
    if response.status >= 400:
        raise _refusal(response)
    return _decoded(response, MeasurementsTaken)


def hand_in_statements(control: str, border: str, chain: tuple[SignedStatement, ...], *, ca: str | None) -> int:
    """Brings the statements of a border's chain that control does not have yet; how many these were. Raises
    AgentRefused or ControlAway."""
    path = f"/agent/v1/borders/{quote(border, safe='')}"

    def send(statements: tuple[SignedStatement, ...]) -> int:
        response = _post(control, ca, path, msgspec.json.encode({"statements": statements}), {})
        if response.status >= 400:
            raise _refusal(response)
        return _decoded(response, Accepted).taken

    try:
        return send(chain[-1:])
    except AgentRefused as error:
        if error.code != "border.gap":
            raise
    return sum(send(chain[at : at + _AT_ONCE]) for at in range(0, len(chain), _AT_ONCE))


def _post(control: str, ca: str | None, path: str, data: bytes, headers: dict[str, str]) -> _Answer:
    """On a connection of its own: requests are seconds apart, and one that was kept may be dead. No proxy of the
    environment has any business between the two."""
    parts = urlsplit(control)
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=ca)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
        try:
            wanted = {**headers, "Content-Type": "application/json"}
            connection.request("POST", f"{parts.path}{path}", body=data, headers=wanted)
            response = connection.getresponse()
            if (announced := response.length) is not None and announced > _MAX_ANSWER_BYTES:
                raise http.client.HTTPException(f"the answer has {announced} bytes")
            body = response.read(_MAX_ANSWER_BYTES)
            return _Answer(status=response.status, signature=response.getheader(SIGNATURE_HEADER, ""), body=body)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        raise ControlAway(
            f"the control plane at {control} can't be reached: {str(error) or type(error).__name__}",
            hint="the agent tries again; confidential routes close when no heart-beat comes through",
        ) from None


def _refusal(response: _Answer) -> SekishoError:
    try:
        problem = msgspec.json.decode(response.body, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = _Problem()
    fact = problem.detail or f"the control plane answered {response.status}"
    if response.status >= 500 or problem.code == "site.control_answer":
        return ControlAway(fact, hint=problem.hint or "look at the control plane's log")
    return AgentRefused(fact, code=problem.code, hint=problem.hint)


def _decoded(response: _Answer, answer: type[T]) -> T:
    try:
        return msgspec.json.decode(response.body, type=answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ControlAway(
            f"the control plane's answer can't be read: {error}",
            code="site.control_answer",
            hint="do the agent and the control plane have the same version?",
        ) from None

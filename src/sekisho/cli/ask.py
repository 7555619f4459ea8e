"""`sekisho ask`: one question through the gateway, over the OpenAI API, as a tenant's program would ask it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import httpx
import msgspec

from sekisho.cli import texts
from sekisho.cli.local import home_option, json_option, ready
from sekisho.kernel.classes import LABELS
from sekisho.kernel.errors import SekishoError

_CONNECT_TIMEOUT_S = 5.0
_READ_TIMEOUT_S = 180.0
_DONE = "[DONE]"


class AskFailed(SekishoError):
    """The question did not get as far as a verdict."""

    code = "ask.unreachable"


class _BrokenOff(Exception):
    """The answer ended before its end."""


class _Refusal(msgspec.Struct, kw_only=True):
    """Our OpenAI-style error (see gateway/refusals.py)."""

    message: str
    message_ja: str = ""
    code: str | None = None
    rules: tuple[str, ...] = ()
    way_out: str = ""
    way_out_ja: str = ""
    decision: str = ""


class _ErrorBody(msgspec.Struct, kw_only=True):
    error: _Refusal


@click.command(help=str(texts.ASK))
@click.argument("question")
@click.option("--class", "data_class", type=click.Choice(LABELS), help=str(texts.OPTION_CLASS))
@click.option("--tenant", help=str(texts.OPTION_TENANT_ASK))
@click.option("--model", help=str(texts.OPTION_MODEL))
@click.option("--stream/--no-stream", default=True, show_default=True, help=str(texts.OPTION_STREAM))
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=128, show_default=True, help=str(texts.OPTION_MAX_TOKENS)
)
@json_option
@home_option
def ask(
    *,
    question: str,
    data_class: str | None,
    tenant: str | None,
    model: str | None,
    stream: bool,
    max_tokens: int,
    as_json: bool,
    root: Path,
) -> None:
    """The help is `texts.ASK`."""
    gateway = _gateway(root, tenant)
    timeout = httpx.Timeout(_READ_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S)
    headers = {"Authorization": f"Bearer {gateway.key}"}
    if data_class:
        headers["X-Sekisho-Class"] = data_class
    try:
        # trust_env: confidential words must not take a detour through a proxy of the environment
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=timeout, trust_env=False) as client:
            request = {
                "model": model or _first_model(client, gateway),
                "messages": [{"role": "user", "content": question}],
                "max_tokens": max_tokens,
                "stream": stream and not as_json,
            }
            with client.stream("POST", "/v1/chat/completions", json=request) as response:
                ok = _show(response, streamed=bool(request["stream"]), as_json=as_json)
    except httpx.HTTPError as error:
        raise AskFailed(
            f"the gateway at {gateway.url} can't be reached: {error!s:.200}", hint="look at `sekisho status`"
        ) from None
    sys.exit(0 if ok else 1)


class _Gateway(msgspec.Struct, frozen=True, kw_only=True):
    """Where to ask, with whose key. `models` are known for an installation on this machine only."""

    url: str
    key: str
    models: tuple[str, ...] = ()


def _gateway(root: Path, tenant: str | None) -> _Gateway:
    """From SEKISHO_URL and SEKISHO_API_KEY, or else from the installation on this machine."""
    url, key = os.environ.get("SEKISHO_URL"), os.environ.get("SEKISHO_API_KEY")
    if url and key and tenant is None:
        return _Gateway(url=url, key=key)
    running = ready(root)
    if tenant is not None:
        key = running.api_keys.get(tenant)
    elif not key:
        key = next(iter(running.api_keys.values()), None)
    if key is None:
        known = ", ".join(running.api_keys) or "none"
        raise AskFailed(
            f"there is no key for {tenant or 'anybody'} here (demonstration tenants: {known})",
            code="ask.no_key",
            hint="put the tenant's key into SEKISHO_API_KEY; real keys are stored as hashes only",
        )
    return _Gateway(url=url or running.gateway_url, key=key, models=running.models)


def _first_model(client: httpx.Client, gateway: _Gateway) -> str:
    """The first model that the key may use. When it may use none, one that exists: the gateway then says why not."""
    response = client.get("/v1/models")
    if response.is_success and (models := response.json()["data"]):
        return str(models[0]["id"])
    return next(iter(gateway.models), "any")


def _show(response: httpx.Response, *, streamed: bool, as_json: bool) -> bool:
    """Print answer and passage, or the refusal. Whether it was answered in full."""
    passage = _passage(response.headers)
    if response.is_error:
        _print_refusal(response, passage, as_json=as_json)
        return False
    broken = ""
    if streamed:
        try:
            for piece in _pieces(response):
                print(piece, end="", flush=True)
        except (httpx.HTTPError, _BrokenOff) as error:
            broken = str(error) or type(error).__name__
        print()
    else:
        body = msgspec.json.decode(response.read())
        if as_json:
            print(msgspec.json.format(msgspec.json.encode({"answer": body, "passage": passage}), indent=1).decode())
            return True
        print(body["choices"][0]["message"]["content"])
    if broken:
        click.echo(texts.CUT_SHORT(reason=broken), err=True)
    click.secho(texts.SERVED_BY(**passage), dim=True, err=True)
    return not broken


def _pieces(response: httpx.Response) -> Iterator[str]:
    """The text of each chunk. A stream that ends without `[DONE]`, or with an error in it, has broken off."""
    for line in response.iter_lines():
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == _DONE:
            return
        chunk: dict[str, Any] = msgspec.json.decode(data)
        if "error" in chunk:
            raise _BrokenOff(str(chunk["error"].get("message", chunk["error"])))
        for choice in chunk.get("choices", ()):
            yield choice.get("delta", {}).get("content") or ""
    raise _BrokenOff("the stream ended before its end")


def _passage(headers: Mapping[str, str]) -> dict[str, str]:
    """Who served it, from the X-Sekisho-* headers; `–` for what is not said."""
    names = {
        "site": "X-Sekisho-Site",
        "operator": "X-Sekisho-Operator",
        "country": "X-Sekisho-Country",
        "data_class": "X-Sekisho-Class",
        "decision": "X-Sekisho-Decision",
    }
    return {name: headers.get(header) or "–" for name, header in names.items()}


def _print_refusal(response: httpx.Response, passage: dict[str, str], *, as_json: bool) -> None:
    content = response.read()
    if as_json:
        print(content.decode(errors="replace"))
        return
    try:
        refusal = msgspec.json.decode(content, type=_ErrorBody).error
    except msgspec.DecodeError:
        refusal = _Refusal(message=f"HTTP {response.status_code}")
    # the messages carry the way out for clients that show nothing else; here it has a line of its own
    words, way_out = refusal.message.removesuffix(f" Way out: {refusal.way_out}"), refusal.way_out
    if texts.language() == "ja" and refusal.message_ja:
        words = refusal.message_ja.removesuffix(f"解決方法: {refusal.way_out_ja}。")
        way_out = refusal.way_out_ja or way_out
    lines = [texts.REFUSED(message=words)]
    facts = (
        (texts.REFUSED_CODE, refusal.code or ""),
        (texts.REFUSED_RULES, ", ".join(refusal.rules)),
        (texts.REFUSED_WAY_OUT, way_out),
        (texts.REFUSED_DECISION, refusal.decision or passage["decision"]),
    )
    lines += [f"  {name}: {value}" for name, value in facts if value]
    click.echo("\n".join(lines), err=True)

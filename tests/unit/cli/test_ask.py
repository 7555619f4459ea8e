"""`sekisho ask` against a FAKE gateway: a few lines of HTTP that answer as the real one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest


class Fake(BaseHTTPRequestHandler):
    answer: ClassVar[tuple[int, bytes]] = (200, b"")
    asked: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_GET(self) -> None:
        self._send(200, b'{"data": [{"id": "first-model"}]}')

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.asked.append((self.path, dict(self.headers), body))
        self._send(*self.answer)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        for name, value in (("Site", "ishikari"), ("Operator", "sakura"), ("Country", "JP"), ("Decision", "d1")):
            self.send_header(f"X-Sekisho-{name}", value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[str]:
    Fake.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Fake)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sekisho.cli.main", "ask", "Hello?", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env=os.environ | {"SEKISHO_LANG": "en", "SEKISHO_URL": url, "SEKISHO_API_KEY": "sk-fake"} | more,
    )


def chunk(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


STREAM = chunk("Good ") + b': a comment\n\ndata: {"choices": []}\n\n' + chunk("day")


def test_a_stream_is_printed_and_then_who_served_it(gateway: str) -> None:
    Fake.answer = (200, STREAM + b"data: [DONE]\n\n")
    result = ask(gateway, "--class", "confidential")
    assert (result.returncode, result.stdout) == (0, "Good day\n")
    assert "served by ishikari · operator sakura · country JP" in result.stderr
    assert "decision d1" in result.stderr
    (path, headers, body) = Fake.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer sk-fake"
    assert headers["X-Sekisho-Class"] == "confidential"
    assert json.loads(body)["model"] == "first-model"


@pytest.mark.parametrize(
    ("rest", "reason"),
    [(b"", "the stream ended before its end"), (b'data: {"error": {"message": "the site broke"}}\n\n', "the site")],
)
def test_a_stream_that_breaks_off_is_not_a_success(gateway: str, rest: bytes, reason: str) -> None:
    Fake.answer = (200, STREAM + rest)
    result = ask(gateway)
    assert (result.returncode, result.stdout) == (1, "Good day\n")
    assert f"The answer broke off: {reason}" in result.stderr


REFUSAL = {
    "error": {
        "message": "No endpoint may serve this. Way out: ask for a site",
        "message_ja": "処理できません。解決方法: サイトの追加を依頼してください。",
        "code": "residency.no_eligible_endpoint",
        "rules": ["jp-only"],
        "way_out": "ask for a site",
        "way_out_ja": "サイトの追加を依頼してください",
        "decision": "d2",
    }
}


def test_a_refusal_is_said_in_words_with_code_rules_and_way_out(gateway: str) -> None:
    Fake.answer = (403, json.dumps(REFUSAL).encode())
    result = ask(gateway)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        "Refused: No endpoint may serve this.",
        "  code: residency.no_eligible_endpoint",
        "  rules: jp-only",
        "  way out: ask for a site",
        "  decision: d2",
    ]
    lines = ask(gateway, SEKISHO_LANG="ja").stderr.splitlines()
    assert lines[0] == "拒否されました: 処理できません。"
    assert "サイトの追加を依頼してください" in "".join(lines[1:])


def test_a_refusal_that_is_not_ours_still_names_the_decision(gateway: str) -> None:
    Fake.answer = (502, b"<html>")
    result = ask(gateway)
    assert result.returncode == 1
    assert "Refused: HTTP 502" in result.stderr
    assert "decision: d1" in result.stderr


def test_json_has_answer_and_passage(gateway: str) -> None:
    Fake.answer = (200, b'{"choices": [{"message": {"content": "Good day"}}]}')
    found = json.loads(ask(gateway, "--json").stdout)
    assert found["answer"]["choices"][0]["message"]["content"] == "Good day"
    assert found["passage"]["country"] == "JP"
    assert ask(gateway, "--no-stream").stdout == "Good day\n"


def test_a_gateway_that_is_not_there_is_a_fault_with_a_next_step() -> None:
    result = ask("http://127.0.0.1:9")
    assert result.returncode == 2
    assert "[ask.unreachable]" in result.stderr
    assert "sekisho status" in result.stderr


def test_a_proxy_of_the_environment_never_sees_the_question(gateway: str) -> None:
    Fake.answer = (200, STREAM + b"data: [DONE]\n\n")
    result = ask(gateway, HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9", NO_PROXY="", no_proxy="")
    assert result.returncode == 0, result.stderr

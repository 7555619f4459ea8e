"""Urls of endpoints: the plain ones pass, everything that leads elsewhere does not."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sekisho.federation.address import AddressRefused, check_url, forbidden_address, is_loopback


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://127.0.0.1:9101/v1", "http://127.0.0.1:9101/v1"),
        ("https://GPU.Example.JP/v1/", "https://gpu.example.jp/v1"),
        ("https://gpu.example.jp", "https://gpu.example.jp"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[2001:DB8:0:0::1]/v1", "http://[2001:db8::1]/v1"),
        (
            "https://x.openai.azure.com/openai/deployments/gpt-4o",
            "https://x.openai.azure.com/openai/deployments/gpt-4o",
        ),
        ("http://vllm_server:8000/v1", "http://vllm_server:8000/v1"),
        ("http://10.0.0.5:8000/v1", "http://10.0.0.5:8000/v1"),
        ("http://xn--wgv71a.jp/v1", "http://xn--wgv71a.jp/v1"),
    ],
)
def test_plain_urls_pass_in_one_form(url: str, plain: str) -> None:
    assert check_url(url) == plain
    assert check_url(plain) == plain


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/v1", "neither http nor https"),
        ("file:///etc/passwd", "neither http nor https"),
        ("host:8000/v1", "neither http nor https"),
        ("//host/v1", "neither http nor https"),
        ("http://user:secret@host/v1", "credentials"),
        ("http://host/v1?key=secret", "query or a fragment"),
        ("http://host/v1#secret", "query or a fragment"),
        ("http://host/v1 ", "spaces"),
        ("http://ho\tst/v1", "spaces"),
        ("http://host\\@evil/v1", "spaces or characters"),
        ("http://例え.jp/v1", "printable ASCII"),
        ("http://host:0/v1", "port"),
        ("http://host:70000/v1", "port"),
        ("http://host:x/v1", "port"),
        ("http:///v1", "no host name"),
        ("http://-host/v1", "no host name"),
        ("http://a..b/v1", "no host name"),
        ("http://host/%2e%2e/v1", "dotted or escaped"),
        ("http://host/../v1", "dotted or escaped"),
        ("http://host//v1", "dotted or escaped"),
        ("http://host/v1/chat/completions", "path of a call, `/chat/completions`"),
        ("http://host/v1/embeddings/", "path of a call"),
        # the metadata services, in every way of writing them
        ("http://169.254.169.254/v1", "metadata"),
        ("http://169.254.0.1/v1", "metadata"),
        ("http://2852039166/v1", "usual form"),
        ("http://0xA9FEA9FE/v1", "usual form"),
        ("http://0251.0376.0251.0376/v1", "usual form"),
        ("http://169.254.43518/v1", "usual form"),
        ("http://127.1/v1", "usual form"),
        ("http://[::ffff:169.254.169.254]/v1", "metadata"),
        ("http://[::169.254.169.254]/v1", "metadata"),
        ("http://[64:ff9b::a9fe:a9fe]/v1", "metadata"),
        ("http://[2002:a9fe:a9fe::]/v1", "metadata"),
        ("http://[fe80::1]/v1", "metadata"),
        ("http://[fe80::1%25eth0]/v1", "usual form"),
        ("http://[fd00:ec2::254]/v1", "metadata"),
        ("http://100.100.100.200/v1", "metadata"),
        ("http://168.63.129.16/v1", "metadata"),
        ("http://metadata.google.internal/v1", "metadata"),
        ("http://METADATA.google.internal/v1", "metadata"),
        ("http://0.0.0.0/v1", "no address of one server"),
        ("http://[::]/v1", "no address of one server"),
        ("http://224.0.0.1/v1", "no address of one server"),
        ("http://255.255.255.255/v1", "no address of one server"),
    ],
)
def test_other_urls_are_refused_with_a_way_out_and_without_secrets(url: str, words: str) -> None:
    refused = check_url(url)
    assert isinstance(refused, AddressRefused)
    assert words in refused.what
    assert refused.mend
    assert "secret" not in refused.what + refused.mend


@given(st.ip_addresses(v=4, network="169.254.0.0/16"))
def test_no_way_of_writing_a_link_local_address_passes(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    mapped = ipaddress.IPv6Address(0xFFFF << 32 | number)
    for host in (str(address), str(number), hex(number), f"[{mapped}]", f"[::ffff:{address}]"):
        assert isinstance(check_url(f"http://{host}/v1"), AddressRefused)
    assert forbidden_address(address)
    assert forbidden_address(mapped)


@given(st.text(max_size=30), st.sampled_from(["", "http://", "https://", "http://["]))
def test_no_text_is_a_fault_and_what_passes_is_stable(text: str, scheme: str) -> None:
    checked = check_url(scheme + text)
    if isinstance(checked, str):
        assert check_url(checked) == checked


def test_loopback_is_this_machine_only() -> None:
    for url in ("http://127.0.0.1:1/v1", "http://127.9.9.9/v1", "http://localhost/v1", "http://[::1]/v1"):
        assert is_loopback(url)
    for url in ("http://10.0.0.1/v1", "http://localhost.example.jp/v1", "http://[2001:db8::1]/v1"):
        assert not is_loopback(url)

"""Whose certificate it is, and what becomes of files that can't be used."""

from pathlib import Path

import pytest

from bridge.sip.errors import TlsError
from bridge.sip.tls import CertificateFiles, TlsContexts, TlsSettings, names_of, speaks_for


def certificate(*names: tuple[str, str]) -> dict[str, object]:
    return {"subject": ((("commonName", "CN.example"),),), "subjectAltName": names}


def test_sip_domains_stand_before_host_names() -> None:
    names = names_of(certificate(("DNS", "host.example"), ("URI", "sip:Example.com"), ("URI", "sip:example.net")))
    assert names == {"example.com", "example.net"}


def test_uris_that_are_no_sip_domain_are_passed_over() -> None:
    others = (("URI", "https://example.com"), ("URI", "sip:alice@example.com"), ("URI", "sips:example.com"))
    assert names_of(certificate(*others, ("DNS", "Host.Example"))) == {"host.example"}


def test_common_name_counts_only_without_alternatives() -> None:
    assert names_of(certificate()) == {"cn.example"}
    assert names_of(certificate(("DNS", "a.example"))) == {"a.example"}
    assert names_of(None) == frozenset()


@pytest.mark.parametrize(
    ("host", "fits"),
    [
        ("pbx.example.com", True),
        ("PBX.example.com.", True),
        ("sip.example.org", True),
        ("a.sip.example.org", False),
        ("example.org", False),
        ("other.example.com", False),
        ("192.0.2.1", True),
        ("192.0.2.2", False),
        ("2001:DB8:0::1", True),
    ],
)
def test_hosts_that_a_certificate_speaks_for(host: str, fits: bool) -> None:
    alternatives = (
        ("DNS", "pbx.example.com"),
        ("DNS", "*.example.org"),
        ("IP Address", "192.0.2.1"),
        ("IP Address", "2001:DB8:0:0:0:0:0:1"),
    )
    assert speaks_for(names_of(certificate(*alternatives)), host) is fits


def test_a_wildcard_over_a_whole_top_level_stands_for_nobody() -> None:
    assert not speaks_for(frozenset({"*.com"}), "example.com")
    assert not speaks_for(frozenset({"*.0.2.1"}), "192.0.2.1")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(TlsError, match=r"absent\.pem"):
        TlsContexts(TlsSettings(own=CertificateFiles(tmp_path / "absent.pem")))
    with pytest.raises(TlsError, match=r"authority .*absent\.pem"):
        TlsContexts(TlsSettings(ca=tmp_path / "absent.pem"))

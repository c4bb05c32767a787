from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from streamproc.errors import FatalError
from streamproc.sinks.endpoint import Endpoint, remedy, tls_context
from tests.brokers import Certificates, make_certificates


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_an_endpoint_reads_as_its_url_and_keeps_its_password() -> None:
    endpoint = Endpoint(host="::1", port=1883, username="me", password="secret horse")
    assert str(endpoint) == "mqtt://[::1]:1883"
    assert "horse" not in repr(endpoint)
    assert str(Endpoint(host="broker", port=8883, tls=tls_context())) == "mqtts://broker:8883"


def test_a_context_checks_certificate_and_host_unless_told_not_to(certificates: Certificates) -> None:
    strict = tls_context(ca=certificates.ca, certificate=certificates.client, key=certificates.client_key)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert len(strict.get_ca_certs()) == 1, "an authority of one's own replaces the system's"
    loose = tls_context(insecure=True)
    assert (loose.verify_mode, loose.check_hostname) == (ssl.CERT_NONE, False)


def test_every_unusable_file_is_named(certificates: Certificates, tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    missing = tmp_path / "missing.pem"
    with pytest.raises(FatalError, match=rf"mqtt\.tls\.ca: cannot read {missing}: No such file"):
        tls_context(ca=missing)
    with pytest.raises(FatalError, match=rf"mqtt\.tls\.ca: {junk} holds no PEM certificate"):
        tls_context(ca=junk)
    with pytest.raises(FatalError, match=rf"mqtt\.tls\.certificate: cannot read {missing}"):
        tls_context(certificate=missing, key=certificates.client_key)
    with pytest.raises(FatalError, match=rf"mqtt\.tls\.key: cannot read {missing}"):
        tls_context(certificate=certificates.client, key=missing)
    with pytest.raises(FatalError, match=rf"{certificates.client} and key {certificates.server_key} cannot be used"):
        tls_context(certificate=certificates.client, key=certificates.server_key)
    with pytest.raises(FatalError, match=rf"{junk} and key {certificates.client_key} cannot be used"):
        tls_context(certificate=junk, key=certificates.client_key)
    with pytest.raises(FatalError, match=r"without mqtt\.tls\.certificate"):
        tls_context(key=certificates.client_key)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "cannot resolve the name 'broker'"),
        (ConnectionRefusedError(111, "Connection refused"), "Start the broker"),
        (TimeoutError(), "no connection within 5 s"),
        (OSError(113, "No route to host"), "No route to host"),
        (ssl.SSLError(1, "wrong version number"), "TLS handshake failed"),
    ],
)
def test_every_failure_has_a_remedy(error: OSError, words: str) -> None:
    said = remedy(error, Endpoint(host="broker", port=1883))
    assert words in said
    assert "mqtt.url" in said

"""Real brokers to test against: mosquitto on a free port, with users or TLS where a test wants them."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["Certificates", "Mosquitto", "free_port", "make_certificates", "mosquitto"]


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.fail(f"this test needs {name}, which is not installed (apt-get install mosquitto openssl)")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """A certificate authority, a server's certificate, and a client's; PEM files."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path


def make_certificates(folder: Path, *, names: str = "DNS:localhost,IP:127.0.0.1") -> Certificates:
    """Certificates made by openssl in ``folder``, valid for a day; the server's is for ``names``."""
    folder.mkdir(parents=True, exist_ok=True)
    openssl = _program("openssl")

    def call(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)

    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1")
    call("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority")
    for name, extension in (
        ("server", f"subjectAltName={names}"),
        ("client", "basicConstraints=CA:FALSE"),
    ):
        (folder / "extensions").write_text(extension)
        call("req", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1", "-extfile", "extensions")
        call("x509", "-req", "-in", f"{name}.csr", *signing, "-out", f"{name}.pem")
    return Certificates(
        ca=folder / "ca.pem",
        server=folder / "server.pem",
        server_key=folder / "server.key",
        client=folder / "client.pem",
        client_key=folder / "client.key",
    )


class Mosquitto:
    """One mosquitto on one port, which may be started and stopped in every way, over and over."""

    def __init__(self, configuration: Path, port: int) -> None:
        self.port = port
        self._configuration = configuration
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert self._process is None, "mosquitto is running already"
        command = [_program("mosquitto"), "-c", str(self._configuration)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if line.rstrip().endswith(" running"):
                self._process = process
                return
        process.stdout.close()
        process.wait()
        pytest.fail(f"mosquitto did not start: {''.join(said)}")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it with a signal, also while it is paused, and wait for its end; nothing if it is not running."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def kill(self) -> None:
        """End it by kill -9."""
        self.stop(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it from answering, its connections staying open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused one go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def mosquitto(
    folder: Path,
    *,
    start: bool = True,
    users: Mapping[str, str] | None = None,
    certificates: Certificates | None = None,
    ask_certificate: bool = False,
) -> Iterator[Mosquitto]:
    """A mosquitto for the length of the block, with its files in ``folder``; open to everybody without ``users``."""
    port = free_port()
    lines = [
        f"listener {port} 127.0.0.1",
        f"allow_anonymous {'false' if users else 'true'}",
        "log_dest stderr",
        "log_type information",
        "log_type error",
        "connection_messages false",
        "user root",  # otherwise, started by root, it becomes somebody who cannot read the test's files
        "max_queued_messages 0",  # a slow subscriber of a test is to miss nothing
    ]
    if users:
        passwords = folder / "passwords"
        passwords.write_text("".join(f"{user}:{password}\n" for user, password in users.items()))
        subprocess.run([_program("mosquitto_passwd"), "-U", str(passwords)], check=True, capture_output=True)
        lines.append(f"password_file {passwords}")
    if certificates is not None:
        lines += [f"cafile {certificates.ca}", f"certfile {certificates.server}", f"keyfile {certificates.server_key}"]
        lines.append(f"require_certificate {'true' if ask_certificate else 'false'}")
    configuration = folder / f"mosquitto-{port}.conf"
    configuration.write_text("\n".join(lines) + "\n")
    broker = Mosquitto(configuration, port)
    if start:
        broker.start()
    try:
        yield broker
    finally:
        broker.kill()

"""Failures of calls, sorted by what to do about them; the texts are those of the server and of gRPC."""

from __future__ import annotations

import grpc
import pytest

from streamproc.engines.triton.connection import CallError, Trouble, _trouble, explain

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("code", "said", "trouble"),
    [
        (Code.UNAVAILABLE, "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8001: Failed to "
         "connect to remote host: connect: Connection refused (111)", Trouble.UNREACHABLE),
        (Code.UNAVAILABLE, "Socket closed", Trouble.UNREACHABLE),
        (Code.UNAVAILABLE, "recvmsg:Connection reset by peer", Trouble.UNREACHABLE),
        (Code.CANCELLED, "CANCELLED", Trouble.UNREACHABLE),
        (Code.UNAVAILABLE, "GOAWAY received", Trouble.UNREACHABLE),
        (Code.DEADLINE_EXCEEDED, "Deadline Exceeded", Trouble.SLOW),
        (Code.UNAVAILABLE, "[yolov8n] Request timeout expired", Trouble.BUSY),
        (Code.UNAVAILABLE, "[yolov8n] Exceeds maximum queue size", Trouble.BUSY),
        (Code.INTERNAL, "Cannot unregister shared memory region 'a', it is currently in use.", Trouble.BUSY),
        (Code.NOT_FOUND, "Request for unknown model: 'yolov8n' is not found", Trouble.NOT_READY),
        (Code.UNAVAILABLE, "Request for unknown model: 'yolov8n' has no available versions", Trouble.NOT_READY),
        (Code.UNAVAILABLE, "Request for unknown model: 'yolov8n' version 2 is not at ready state", Trouble.NOT_READY),
        (Code.INTERNAL, "Stub process 'yolov8n_0_0' is not healthy.", Trouble.NOT_READY),
        (Code.UNAVAILABLE, "Server is stopping, scheduler for model has stopped accepting new inference requests",
         Trouble.UNREACHABLE),
        (Code.NOT_FOUND, "Unable to find shared memory region: 'streamproc-1-a'", Trouble.NO_REGION),
        (Code.NOT_FOUND, "Unable to find system shared memory region: 'streamproc-1-a'", Trouble.NO_REGION),
        (Code.NOT_FOUND, "Unable to find cuda shared memory region: 'streamproc-1-a-cuda'", Trouble.NO_REGION),
        (Code.INTERNAL, "shared memory size specified with the request for output 'rows' (48 bytes) should be at least "
         "12000 bytes to hold the results", Trouble.TOO_SMALL),
        (Code.UNAVAILABLE, "This protocol is restricted, expecting header 'triton-grpc-protocol-key'", Trouble.DENIED),
        (Code.UNAUTHENTICATED, "invalid token", Trouble.DENIED),
        (Code.PERMISSION_DENIED, "RBAC: access denied", Trouble.DENIED),
        (Code.INVALID_ARGUMENT, "unexpected shape for input 'images' for model 'm'. Expected [-1,32,32,3], got "
         "[1,32,64,3]", Trouble.REFUSED),
        (Code.INTERNAL, "ONNX Runtime failed: bad", Trouble.REFUSED),
        (Code.UNIMPLEMENTED, "", Trouble.REFUSED),
    ],
)  # fmt: skip
def test_sorted_by_what_to_do(code: grpc.StatusCode, said: str, trouble: Trouble) -> None:
    assert _trouble(code, said) is trouble


@pytest.mark.parametrize(
    ("said", "gone", "tls"),
    [
        ("last error: UNKNOWN: ipv4:127.0.0.1:8001: Failed to connect: Connection refused (111)", True, False),
        ("last error: UNKNOWN: ipv6:%5B::1%5D:8001: Failed to connect: Connection refused (111)", False, False),
        ("Socket closed", False, False),
        ("Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: WRONG_VERSION_NUMBER", False, True),
        ("Peer name localhost is not in peer certificate", False, True),
        ("failed with error: UNAUTHENTICATED: Hostname Verification Check failed", False, True),
    ],
)
def test_what_an_unreachable_server_is_like(said: str, gone: bool, tls: bool) -> None:
    error = CallError(Trouble.UNREACHABLE, said)
    assert (error.nobody_there, error.about_tls) == (gone, tls)
    other = CallError(Trouble.REFUSED, said)
    assert not other.nobody_there
    assert not other.about_tls


@pytest.mark.parametrize("trouble", Trouble)
def test_every_explanation_has_the_address_and_what_was_said(trouble: Trouble) -> None:
    text = explain("grpc://host:8001", CallError(trouble, "so it is."))
    assert text.startswith("triton grpc://host:8001: ")
    assert "so it is" in text

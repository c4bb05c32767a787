"""Camera and broker addresses: which are accepted, and what to do about the others."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, quote, unquote, urlsplit

from streamproc.config.placeholder import filled_in
from streamproc.config.refusals import RefusedError, did_you_mean

__all__ = [
    "TRITON_DEFAULT_URL",
    "check_broker_url",
    "check_camera_url",
    "check_listen_address",
    "check_push_url",
    "check_triton_url",
    "file_url_path",
    "is_own_server",
    "is_rtsp",
    "quote_userinfo",
]

TRITON_DEFAULT_URL = "grpc://127.0.0.1:8001"

_RTSP_PORTS = {"rtsp": 554, "rtsps": 322}  # RFC 7826 section 22.14
_RTSP_SCHEMES = tuple(_RTSP_PORTS)
_CAMERA = "the camera"
_MEDIA_SERVER = "the media server"
_OTHER_STREAMS = ("http", "https", "rtmp", "rtmps", "rtp", "srt", "tcp", "udp")
_BROKER_PORTS = {"mqtt": 1883, "mqtts": 8883, "embedded": 1883}
_CAMERA_EXPECTED = "rtsp://, rtsps://, a video file, or a glob of video files"
_PUSH_EXPECTED = "rtsp://HOST:8554/{camera}, or the same with rtsps://"
_BROKER_EXPECTED = "mqtt://HOST:1883, mqtts://HOST:8883 or embedded://127.0.0.1:1883"
_LISTEN_EXAMPLE = "127.0.0.1:8554"
_TRITON_PORT = 8001
_TRITON_EXPECTED = "grpc://HOST:8001 or grpcs://HOST:8001"
_OTHER_BROKER_NAMES = {"tcp": "mqtt", "ssl": "mqtts", "tls": "mqtts"}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]")
_PERCENT_ENCODE = (
    "Percent-encode reserved characters in the user name and password: '@' as %40, '/' as %2F, '#' as %23, '?' as %3F."
)
# What RFC 3986 section 3.2.1 lets stand unquoted in user information, and '%', which announces a quoted character.
_USERINFO_SAFE = "!$&'()*+,;=:%"


def is_rtsp(url: str) -> bool:
    """Whether a checked camera address is a live RTSP stream rather than files."""
    return url.startswith(("rtsp://", "rtsps://"))


def quote_userinfo(text: str) -> str:
    """User name or password as a URL can carry it; what is percent-encoded already stays so.

    >>> quote_userinfo("p@ss/w%40rd")
    'p%40ss%2Fw%40rd'
    """
    return quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", text), safe=_USERINFO_SAFE)


def check_camera_url(url: str) -> str:
    """A camera's address, normalised: lower-case scheme, user information percent-encoded. Paths stay as they are."""
    if not url.strip():
        raise RefusedError(expected=_CAMERA_EXPECTED, remedy="Write, for example, url: rtsp://10.0.0.5/stream1.")
    match = _SCHEME.fullmatch(url)
    if match is None:
        _check_path_shape(url)
        return url
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return url
    _check_rtsp_scheme(scheme, _CAMERA_EXPECTED, "Use the camera's RTSP address, or record the stream to a file.")
    return f"{scheme}://{_check_rtsp(rest, _CAMERA)}"


def _check_rtsp_scheme(scheme: str, expected: str, remedy: str) -> None:
    if scheme not in _RTSP_SCHEMES:
        if scheme not in _OTHER_STREAMS:
            remedy = did_you_mean(scheme, _RTSP_SCHEMES) or remedy
        raise RefusedError(found=f"an address of the kind {scheme}://", expected=expected, remedy=remedy)


def _check_path_shape(path: str) -> None:
    if re.match(r"(?i)rtsps?:", path):
        raise RefusedError(expected=_CAMERA_EXPECTED, remedy="Write two slashes after the colon: rtsp://HOST/PATH.")
    if _WINDOWS_PATH.match(path):
        remedy = "Write the path as this machine sees it, such as /data/gate.mp4, or as file:///data/gate.mp4."
        raise RefusedError(found="a Windows path", expected=_CAMERA_EXPECTED, remedy=remedy)


def check_push_url(url: str) -> str:
    """Where streams are pushed to, normalised as a camera's address; ``{camera}`` may stand in its path."""
    bare = filled_in(url, "an address")
    match = _SCHEME.fullmatch(bare)
    if match is None:
        remedy = "Write, for example, push: rtsp://media:8554/{camera}."
        raise RefusedError(expected=_PUSH_EXPECTED, remedy=remedy)
    scheme = match[1].lower()
    _check_rtsp_scheme(scheme, _PUSH_EXPECTED, "Use the RTSP address of the media server.")
    authority, slash, path = url.partition("://")[2].partition("/")
    if "{" in authority:
        remedy = "Write it behind the host, as in rtsp://media:8554/{camera}."
        raise RefusedError(found="{camera} before the path", expected=_PUSH_EXPECTED, remedy=remedy)
    checked, _, _ = _check_rtsp(match[2], _MEDIA_SERVER).partition("/")
    if not path.strip("/") or re.search("[?#]", authority):
        remedy = "Add the path under which the server shall have it: /{camera}."
        raise RefusedError(found="an address without a path", expected=_PUSH_EXPECTED, remedy=remedy)
    return f"{scheme}://{checked}{slash}{path}"


def is_own_server(url: str, listen: str) -> bool:
    """Whether a checked address leads to what listens at a checked ``host:port`` of this machine."""
    there, here = urlsplit(url), urlsplit(f"rtsp://{listen}")
    assert there.hostname is not None
    assert here.hostname is not None
    if (there.port or _RTSP_PORTS[there.scheme]) != here.port:
        return False
    local = here.hostname in ("0.0.0.0", "::") or _is_loopback(here.hostname)
    return there.hostname == here.hostname or (local and _is_loopback(there.hostname))


def _check_rtsp(rest: str, whose: str) -> str:
    """What follows ``rtsp://``; as in libav, the last '@' before the first of '/?#' ends the user information."""
    if re.search(r"[\s\x00-\x1f\x7f]", rest):
        raise RefusedError(expected="an address without blanks", remedy="Remove the blank, or write it as %20.")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    userinfo, at, host = authority.rpartition("@")
    if not at and ":" in host and "@" in path:
        # Either rtsp://user:pa/ss@host or a path with an '@' behind host:port: refused rather than guessed.
        raise RefusedError(
            found="an '@' behind the first '/', '?' or '#'",
            expected="rtsp://USER:PASSWORD@HOST:PORT/PATH",
            remedy=_PERCENT_ENCODE,
        )
    _check_host(_split(f"rtsp://{host}", "rtsp://HOST:PORT/PATH"), "rtsp://HOST:PORT/PATH", whose)
    return f"{quote_userinfo(userinfo)}{at}{host}{path}"


def file_url_path(url: str) -> str:
    """The path of a ``file://`` address of this machine, or the path given."""
    match = _SCHEME.fullmatch(url)
    if match is None or match[1].lower() != "file":
        return url
    host, slash, path = match[2].partition("/")
    if host.lower() not in ("", "localhost"):
        remedy = "Write three slashes before an absolute path: file:///data/gate.mp4."
        raise RefusedError(expected="a file:// address of this machine", remedy=remedy)
    return unquote(slash + path)


def check_broker_url(url: str) -> str:
    """A broker's address, normalised to ``scheme://host:port``: lower-case scheme, the port always there."""
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise RefusedError(expected=_BROKER_EXPECTED, remedy="Begin the address with mqtt://, mqtts:// or embedded://.")
    scheme = match[1].lower()
    if scheme not in _BROKER_PORTS:
        remedy = (
            did_you_mean(_OTHER_BROKER_NAMES.get(scheme, scheme), _BROKER_PORTS) or "Use the broker's MQTT listener."
        )
        raise RefusedError(found=f"an address of the kind {scheme}://", expected=_BROKER_EXPECTED, remedy=remedy)
    host, port = _check_server(
        url,
        expected=_BROKER_EXPECTED,
        whose="the broker",
        users="Move them to the keys mqtt.username and mqtt.password.",
        path="Remove what follows the port; topics are made from mqtt.prefix, site and the camera's name.",
    )
    if scheme == "embedded" and not _is_loopback(host):
        raise RefusedError(
            found="embedded:// with an address that is not this machine's own",
            expected="embedded://127.0.0.1:PORT",
            remedy="The embedded broker serves this machine only; for others run a broker and name it with mqtt://.",
        )
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or _BROKER_PORTS[scheme]}"


def check_triton_url(url: str) -> str:
    """A Triton server's gRPC address, normalised to ``scheme://host:port``."""
    match = _SCHEME.fullmatch(url)
    if match is None:
        raise RefusedError(expected=_TRITON_EXPECTED, remedy="Begin the address with grpc://, or grpcs:// for TLS.")
    scheme = match[1].lower()
    if scheme not in ("grpc", "grpcs"):
        remedy = "Name the port of Triton's gRPC service, 8001 unless the server was told otherwise."
        raise RefusedError(found=f"an address of the kind {scheme}://", expected=_TRITON_EXPECTED, remedy=remedy)
    host, port = _check_server(
        url,
        expected=_TRITON_EXPECTED,
        whose="the server",
        users="Triton knows no users: send a token with engine.headers.",
        path="Remove what follows the port; the model is named by model.name.",
    )
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or _TRITON_PORT}"


def check_listen_address(text: str) -> str:
    """Where to listen, normalised to ``host:port``; IPv6 addresses in brackets."""
    if _SCHEME.fullmatch(text):
        remedy = f"Remove what stands before the host, as in {_LISTEN_EXAMPLE}."
        raise RefusedError(found="an address with ://", expected="HOST:PORT", remedy=remedy)
    if text.isdigit():
        remedy = "Write 127.0.0.1: before it to serve this machine, or 0.0.0.0: to serve every network it is in."
        raise RefusedError(found="a port alone", expected="HOST:PORT", remedy=remedy)
    parts = _split(f"rtsp://{text}", "HOST:PORT")
    if parts.path or parts.query or parts.fragment or "@" in text:
        remedy = f"Write the host and the port alone, as in {_LISTEN_EXAMPLE}."
        raise RefusedError(found="more than a host and a port", expected="HOST:PORT", remedy=remedy)
    host, port = _check_host(parts, "HOST:PORT", "this machine")
    if port is None:
        remedy = f"Add one, as in {_LISTEN_EXAMPLE}."
        raise RefusedError(found="an address without a port", expected="HOST:PORT", remedy=remedy)
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _check_server(url: str, *, expected: str, whose: str, users: str, path: str) -> tuple[str, int | None]:
    """Host and port of an address that has nothing else; ``users`` and ``path`` say what to do about those."""
    parts = _split(url, expected)
    if "@" in url:
        raise RefusedError(found="a user name or password in the address", expected=expected, remedy=users)
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise RefusedError(found="a path behind the address", expected=expected, remedy=path)
    return _check_host(parts, expected, whose)


def _split(url: str, expected: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        raise RefusedError(expected=expected, remedy="Write an IPv6 address in brackets: [fd00::5].") from None


def _check_host(parts: SplitResult, expected: str, whose: str) -> tuple[str, int | None]:
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        remedy = "Correct the port, or leave it out."
        if whose in (_CAMERA, _MEDIA_SERVER) and not re.search(r":[0-9]+$", parts.netloc):
            remedy = f"Correct the port, or leave it out. {_PERCENT_ENCODE}"
        raise RefusedError(found="a port that is not usable", expected="a port from 1 to 65535", remedy=remedy)
    if not parts.hostname or re.search(r"[\s\\{}<>^`|\"]", parts.hostname):
        remedy = f"Add the name or address of {whose} behind '//'."
        raise RefusedError(found="an address without a usable host", expected=expected, remedy=remedy)
    return parts.hostname, port


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""What `streamproc simulate` does: serve files as RTSP cameras, which fail in every way that real ones do."""

from __future__ import annotations

from streamproc.simulate.cameras import SimulatedCameras, simulated_cameras
from streamproc.simulate.faults import Change, Fault, FaultKind, parse_faults

__all__ = ["Change", "Fault", "FaultKind", "SimulatedCameras", "parse_faults", "simulated_cameras"]

"""Several processes that share a run's cameras, each with interpreter, engine and trackers of its own.

The run's own process keeps what must be single: the RTSP port, the states on the broker, supervision and the report.
Orders, states and encoded pictures cross from one process to the other; raw frames never do. The cameras' books lie in
memory that all of them share, so that not one frame goes unbooked when a process crashes.
"""

from streamproc.fleet.books import SharedBooks
from streamproc.fleet.fleet import Fleet
from streamproc.fleet.plan import Plan, plan_workers

__all__ = ["Fleet", "Plan", "SharedBooks", "plan_workers"]

"""Secondary models: on the crops of objects that the detector, or another secondary model, has found."""

from streamproc.cascade.cascade import Cascade, StageCounts

__all__ = ["Cascade", "StageCounts"]

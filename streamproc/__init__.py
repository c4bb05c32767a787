"""streamproc: many cameras in, tracked detections on MQTT and annotated video out."""

__all__ = ["__version__"]

__version__ = "0.1.0"

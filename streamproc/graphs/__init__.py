"""ONNX graphs: reading them, and changing them so that a server or an engine does more of the work."""

__all__: list[str] = []

"""Measurements that a user can repeat: how tensors travel to a Triton server, and what it costs."""

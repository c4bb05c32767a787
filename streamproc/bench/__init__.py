"""Measurements that a user can repeat: what a machine carries, what a pipeline adds to its engine, what images cost."""

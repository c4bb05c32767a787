"""What a model's output means."""

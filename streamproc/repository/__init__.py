"""Model repositories for NVIDIA Triton: built from model files, listed, inspected, rolled back."""

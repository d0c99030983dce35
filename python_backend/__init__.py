"""What runs inside Triton's Python processes, and what starts Triton."""

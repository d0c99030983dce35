"""What a running search tells: metrics, spans, the quality monitor."""

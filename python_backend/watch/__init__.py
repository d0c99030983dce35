"""What running searches report: metrics, spans, measured quality."""

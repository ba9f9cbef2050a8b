"""What the service tells about itself: metrics for Prometheus, and logs by structlog."""

"""Telemetry: metrics for Prometheus, logs by structlog, traces by OpenTelemetry."""

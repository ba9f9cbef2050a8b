"""HTTP/1.1 (RFC 9110, RFC 9112) as every port here speaks it, from bytes to ASGI."""

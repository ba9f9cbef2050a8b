"""The role that holds clients' connections: one module a transport, and the gateway itself."""

"""JSON Web Tokens (RFC 7519), verified by a secret, by public keys or by an issuer's keys."""

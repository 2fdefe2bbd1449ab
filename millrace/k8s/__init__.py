"""Kubernetes: manifests rendered from the registry, and everything that they need beside them."""

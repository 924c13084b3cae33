"""Peers of other libp2p implementations, and what they have to see of oc-discovery."""

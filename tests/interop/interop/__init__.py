"""Peers of other libp2p implementations, and what they must observe of oc-discovery."""

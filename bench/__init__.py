"""Measures the gateway on this machine, against a bare pass-through proxy in the same run."""

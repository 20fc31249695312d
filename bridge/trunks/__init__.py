"""Trunks: the carriers, PBXs and phones that we know, and what becomes of everybody else."""

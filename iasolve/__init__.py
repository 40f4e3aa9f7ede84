"""Solve imaging inverse problems with an IA-HVAE prior."""

"""Weights and cards of the bundled priors."""

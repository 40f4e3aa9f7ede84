"""Forward operators, noise models and sampling masks."""

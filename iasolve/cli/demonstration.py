def demonstrate(*a): raise SystemExit

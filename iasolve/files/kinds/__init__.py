"""One module a format: what reads it, what writes it, and what it cannot hold.

``../formats.py`` has a row for each. A format's library is imported inside its functions, so that the table costs
nothing.
"""

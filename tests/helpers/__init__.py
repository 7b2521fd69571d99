"""What several test files use: a small collection, a server, official trees of files, and the NumPy oracle."""

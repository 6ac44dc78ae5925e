"""Stores compared byte for byte."""

import hashlib


def tree_of(root):
    """What a store holds: the hash of each file by its path; locks are empty and left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }

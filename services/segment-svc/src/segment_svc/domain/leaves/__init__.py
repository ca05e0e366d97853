"""The conditions a segment may use, a file per family; vocabulary.py puts them together."""

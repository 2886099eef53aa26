"""Uploaded and produced files: bytes on disk, everything else about them in the store."""

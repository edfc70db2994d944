"""Pickles, followed by an interpreter of their opcodes that imports nothing and calls nothing."""

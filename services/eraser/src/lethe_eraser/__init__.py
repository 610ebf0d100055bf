"""Finds and erases what a withdrawn user left behind."""

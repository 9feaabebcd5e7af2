"""Executed notebooks as offline pages, and the index page of a study."""

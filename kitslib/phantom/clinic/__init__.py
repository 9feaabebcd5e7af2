"""Patients of any clinic, where KiTS19 has candidates for surgery: bodies, fields, rarities."""

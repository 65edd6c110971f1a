"""Imported by tests/test_utils/test_registration.py, when it should be."""

"""Evaluate predictions of any system against truths, as the five papers do."""

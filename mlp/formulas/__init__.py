"""Formulas, each in one home: pure functions that every backend turns into one kernel."""

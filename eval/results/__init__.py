"""From records to published numbers: rows with intervals, ideals, breakdowns, tables, and what a sweep finds."""

"""From samples to records: what is measured on what, in turns, timed, and logged so that a kill loses little."""

"""What each bundle weighs, how good it is and what it costs: the table in README.md."""

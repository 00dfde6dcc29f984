"""Floor 2: every form in which edged's values leave or enter the process. Pure functions."""

"""Records: which are wanted, how they become rows, and the log that says which rows are live."""

"""How a run is made: cases in turn, samples, rows of the table, the file."""

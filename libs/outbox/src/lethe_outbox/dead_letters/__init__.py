"""Dead letters in a table: read from their topics, chosen, sent back or given up."""

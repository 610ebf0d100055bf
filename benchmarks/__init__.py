"""What we measure, one module per figure, each next to the floor of the same run."""

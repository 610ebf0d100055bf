"""What we measure, one module per figure, each beside what it is compared with in the same run."""

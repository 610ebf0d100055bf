"""The loop that erases: takes jobs in the window, works in batches, resumes after anything."""

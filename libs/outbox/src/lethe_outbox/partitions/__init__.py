"""Range partitions by month: made ahead, and dropped when nobody needs them any more."""

"""What every Lethe service does the same way: settings, logs, life cycle, health, HTTP, keys."""

"""What every Lethe service does the same way: settings, logging, lifecycle, health, metrics, problems, API keys."""

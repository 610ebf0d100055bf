"""The whole stack on one machine without Docker, the sample product, the demo and its audit."""

"""All SQL of the eraser: one module per group of tables."""

"""Pictures of numbers: what a person looks at instead of a table."""

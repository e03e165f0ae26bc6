"""What a run and the commands are made of."""

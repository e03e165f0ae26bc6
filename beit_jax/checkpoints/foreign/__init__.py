"""Other projects' checkpoints: tables of names, and the arrays' layouts."""
